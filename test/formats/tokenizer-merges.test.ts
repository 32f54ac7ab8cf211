/** Scores and lists of merges say the same: what one order merges first, the other does. */
import { describe, expect, it } from "vitest";
import { areAlike, type Merge, mergesOf, scoresOf } from "../../formats/gguf/tokenizer/merges.ts";

/** Runs of spaces have one score, as in Llama 2: llama.cpp then merges at the leftmost place. */
const PIECES = [
  ...[
    ["▁▁", -1e9],
    ["▁t", -1],
    ["▁▁▁", -1e9],
    ["he", -2],
    ["▁the", -3],
    ["▁▁▁▁", -1e9],
  ],
  ...[
    ["▁", -4],
    ["t", -5],
    ["h", -6],
    ["e", -7],
    ["th", -2.5],
  ],
].map(([text, score]) => ({ text: String(text), score: Number(score) }));
const MERGES: readonly Merge[] = [
  ["▁", "t"],
  ["h", "e"],
  ["t", "h"],
  ["▁t", "he"],
  ["▁▁▁", "▁"],
  ["▁▁", "▁▁"],
  ["▁▁", "▁"],
  ["▁", "▁▁▁"],
  ["▁", "▁▁"],
  ["▁", "▁"],
];
const ids = new Map(PIECES.map(({ text }, id) => [text, id + 259]));
const stored = (text: string) => PIECES.find((piece) => piece.text === text)?.score;

describe("merges", () => {
  it("have the order of scores; a run grows from its left end", () => {
    expect(mergesOf(PIECES)).toEqual(MERGES);
  });

  it("give scores of their order, and one score to pieces that have no order", () => {
    const scoreOf = scoresOf(ids, MERGES);
    expect(["▁t", "he", "th"].map(scoreOf)).toEqual([-1, -3, -10]); // counted from 259, and no lower than -10
    const [two, three, four] = ["▁▁", "▁▁▁", "▁▁▁▁"].map(scoreOf);
    expect([three, three! < scoreOf("▁the"), two! <= three!]).toEqual([four, true, true]);
    const again = mergesOf(PIECES.map(({ text }) => ({ text, score: scoreOf(text) })));
    expect(again).toEqual(MERGES);
  });

  it("are alike in any order within a piece, and in no other order", () => {
    const scores = (text: string) => ({ "▁th": 1 })[text] ?? stored(text);
    expect(areAlike(MERGES, mergesOf(PIECES), stored)).toBe(true);
    const [first, second, third, ...rest] = MERGES;
    expect(areAlike([second!, first!, third!, ...rest], MERGES, stored)).toBe(false);
    expect(areAlike([first!, second!, ...rest], MERGES, stored)).toBe(false);
    expect(areAlike([first!, second!, second!, ...rest], MERGES, stored)).toBe(false);
    expect(areAlike([...MERGES.slice(0, -2), ["▁", "▁"], ["▁", "▁▁"]], MERGES, stored)).toBe(false);
    const two: readonly Merge[] = [
      ["▁t", "h"],
      ["▁", "th"],
    ];
    expect(areAlike(two, two.toReversed(), scores)).toBe(true);
  });

  it("of texts that would take minutes are refused", () => {
    const long = Array.from({ length: 20 }, (_, i) => ({ text: "x".repeat(8000 + i), score: 0 }));
    expect(() => mergesOf(long)).toThrow(expect.objectContaining({ code: "LIMIT_EXCEEDED" }));
  });
});
