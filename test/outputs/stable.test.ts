/** What a record of outputs leaves out, and what must stay in it. */
import { describe, expect, it } from "vitest";
import { eventsOf, factsOf, stable } from "./stable.ts";

const digest = (text: string) => `<${text.length}>`;

describe("a report that two runs can be compared by", () => {
  it("has no times, no machine, and sorted keys at every depth", () => {
    const report = {
      seconds: 1.5,
      peakRssBytes: 7,
      verification: { verdict: "same", device: "A", backend: "wasm" },
    };
    expect(JSON.stringify(stable(report, digest))).toBe(
      '{"verification":{"backend":"wasm","verdict":"same"}}',
    );
  });

  it("keeps codes and places of an error, and that it has a text, but not the wording", () => {
    const error = { code: "USAGE", message: "unknown option", at: { file: "a" }, next: "run it with --help" };
    expect(stable({ error }, digest)).toEqual({
      error: { code: "USAGE", message: "(text)", at: { file: "a" }, next: "(text)" },
    });
  });

  it("keeps how many texts there are, and none of the texts of SARIF", () => {
    const run = { warnings: ["a", "b"], shortDescription: { text: "c" }, why: null };
    expect(stable(run, digest)).toEqual({
      warnings: ["(text)", "(text)"],
      shortDescription: "(text)",
      why: null,
    });
  });

  it("keeps the names and numbers of a label", () => {
    expect(stable({ mutation: "words 476 and 281 of head.weight exchanged" }, digest)).toEqual({
      mutation: "281 476 head.weight",
    });
    expect(stable({ differences: [{ role: "head" }, "config.json: eps 1e-5."] }, digest)).toEqual({
      differences: [{ role: "head" }, "1e-5 config.json"],
    });
  });

  it("shortens only long arrays of numbers, and by what they hold", () => {
    const numbers = (last: number) => [...Array(16).fill(0), last];
    expect(stable({ shape: [2, 3] }, digest)).toEqual({ shape: [2, 3] });
    expect(stable(numbers(1), digest)).not.toEqual(stable(numbers(12), digest));
    expect(stable([..."abcdefghijklmnopqrst"], digest)).toHaveLength(20);
  });
});

it("tells facts of a sentence from its words", () => {
  expect(factsOf("The file `a/b.json`, of 12 bytes, is not whole.")).toBe("12 a/b.json");
});

it("lists kinds of events once, in an order that does not depend on timing", () => {
  const lines = [
    '{"type":"phase","phase":"verify"}',
    '{"type":"advance","phase":"verify","bytes":9}',
    '{"type":"advance","phase":"verify","bytes":3}',
    '{"type":"rung","rung":"bytes","verdict":"same"}',
  ];
  const expected = ["advance", "phase verify", "rung bytes: same"];
  expect(eventsOf(`${lines.join("\n")}\n`)).toEqual(expected);
  expect(eventsOf(lines.toReversed().join("\n"))).toEqual(expected);
});
