/** A list of merges divides a text as scores do: the neighbours whose text has the highest score, the leftmost of equal ones. */
import { expect, it } from "vitest";
import { type Merge, mergesOf } from "../../formats/gguf/tokenizer/merges.ts";

const pieces = [
  ...["_", "__", "___", "____", "________"].map((text) => ({ text, score: -1e9 })),
  ...["a", "b", "ab", "abab"].map((text, i) => ({ text, score: -i })),
];
const scoreOf = new Map(pieces.map(({ text, score }) => [text, score]));

/** Merges the neighbours of the highest rank, the leftmost first, until none are left. */
function divide(text: string, rankOf: (merge: Merge) => number): readonly string[] {
  const parts = [...text];
  for (;;) {
    const ranks = parts.slice(1).map((right, i) => rankOf([parts[i]!, right]));
    const best = Math.max(...ranks);
    if (best === -Infinity) return parts;
    const at = ranks.indexOf(best);
    parts.splice(at, 2, parts[at]! + parts[at + 1]!);
  }
}

it.each([...Array.from({ length: 24 }, (_, n) => "_".repeat(n + 1)), "abab", "a_ab__abab", "____abab_"])(
  "%s",
  (text) => {
    const list = mergesOf(pieces).map((merge) => merge.join(" "));
    const byList = (merge: Merge) =>
      list.includes(merge.join(" ")) ? -list.indexOf(merge.join(" ")) : -Infinity;
    const byScore = (merge: Merge) => scoreOf.get(merge.join("")) ?? -Infinity;
    expect(divide(text, byList)).toEqual(divide(text, byScore));
  },
);
