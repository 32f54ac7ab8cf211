/** What is written is read back as it was meant. */
import { describe, expect, it } from "vitest";
import { readPickle } from "../../../formats/codec/pickle/read.ts";
import type { PickleValue } from "../../../formats/codec/pickle/value.ts";
import { type WrittenValue, writePickle } from "../../../formats/codec/pickle/write.ts";
import { randomFrom } from "../../support/random.ts";

const INTS = [0, 1, 255, 256, 65535, 65536, -1, -128, -129, 2 ** 31 - 1, 2 ** 31, -(2 ** 31), 2 ** 53 - 1];
const WIDE = [
  2n ** 53n,
  -(2n ** 53n),
  2n ** 63n - 1n,
  -(2n ** 63n),
  2n ** 64n,
  2n ** 200n,
  -(2n ** 200n) - 1n,
];
const FLOATS = [0, 1.5, -2.25, 1e308, 5e-324, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
const TEXTS = ["", "a", "__proto__", "é\u0000ß", "👍", "x".repeat(300)];

type Random = (n: number) => number;
interface Case {
  readonly written: WrittenValue;
  readonly read: PickleValue;
}

/** A value to write, and beside it what a reader must see. */
function caseOf(random: Random, depth: number): Case {
  const pick = <T>(from: readonly T[]): T => from[random(from.length)]!;
  const some = (): Case[] =>
    Array.from({ length: pick([0, 1, 2, 3, 4, 5]) }, () => caseOf(random, depth - 1));
  const scalar = (): Case => {
    const float = pick(FLOATS);
    return pick<Case>([
      { written: null, read: null },
      { written: true, read: true },
      { written: false, read: false },
      ...[pick(INTS), pick(WIDE), pick(TEXTS)].map((value) => ({ written: value, read: value })),
      { written: { float }, read: float },
      { written: { global: "torch.bfloat16" }, read: { kind: "global", name: "torch.bfloat16" } },
    ]);
  };
  const pairs = () => some().map((value, i) => ({ key: `${i} ${pick(TEXTS)}`, value }));
  if (depth === 0) return scalar();
  switch (random(6)) {
    case 0: {
      const items = some();
      return {
        written: { list: items.map(({ written }) => written) },
        read: { kind: "list", items: items.map(({ read }) => read) },
      };
    }
    case 1: {
      const items = some();
      return {
        written: { tuple: items.map(({ written }) => written) },
        read: { kind: "tuple", items: items.map(({ read }) => read) },
      };
    }
    case 2: {
      const entries = pairs();
      return {
        written: { dict: entries.map(({ key, value }) => [key, value.written] as const) },
        read: { kind: "dict", entries: entries.map(({ key, value }) => [key, value.read] as const) },
      };
    }
    case 3: {
      const entries = pairs();
      return {
        written: {
          reduce: { global: "collections.OrderedDict" },
          args: [],
          entries: entries.map(({ key, value }) => [key, value.written] as const),
        },
        read: { kind: "dict", entries: entries.map(({ key, value }) => [key, value.read] as const) },
      };
    }
    case 4: {
      const [args, fields] = [some(), pairs()];
      return {
        written: {
          newobj: { global: "argparse.Namespace" },
          args: args.map(({ written }) => written),
          state: { dict: fields.map(({ key, value }) => [key, value.written] as const) },
        },
        read: {
          kind: "record",
          name: "argparse.Namespace",
          args: args.map(({ read }) => read),
          fields: new Map(fields.map(({ key, value }) => [key, value.read])),
          items: [],
          entries: [],
        },
      };
    }
    default:
      return scalar();
  }
}

describe("write, then read", () => {
  it("gives any value back", () => {
    for (let seed = 0; seed < 1000; seed++) {
      const { written, read } = caseOf(randomFrom(seed), seed % 6);
      const bytes = writePickle(written);
      const { value, end } = readPickle(bytes, { file: "x" });
      expect(value, `seed ${seed}`).toEqual(read);
      expect(end, `seed ${seed}`).toBe(bytes.byteLength);
    }
  });

  it("gives a list and a dict of several batches back", () => {
    const numbers = Array.from({ length: 2500 }, (_, i) => i);
    const list = readPickle(writePickle({ list: numbers }), { file: "x" }).value;
    expect(list).toEqual({ kind: "list", items: numbers });
    const dict = readPickle(writePickle({ dict: numbers.map((n) => [`k${n}`, n] as const) }), {
      file: "x",
    }).value;
    expect(dict).toEqual({ kind: "dict", entries: numbers.map((n) => [`k${n}`, n]) });
  });

  it("gives a tensor and its storage back", () => {
    const type = { global: "torch.HalfStorage" };
    const persid = { tuple: ["storage", type, "3", "cpu", 12] };
    const hooks = { reduce: { global: "collections.OrderedDict" }, args: [] };
    const bytes = writePickle({
      reduce: { global: "torch._utils._rebuild_tensor_v2" },
      args: [{ persid }, 4, { tuple: [2, 2] }, { tuple: [4, 1] }, false, hooks],
    });
    const storage = { kind: "storage", key: "3", dtype: "F16", count: 12 };
    const { value, storages } = readPickle(bytes, { file: "x" });
    expect(value).toEqual({
      kind: "tensor",
      storage,
      dtype: "F16",
      shape: [2, 2],
      strides: [4, 1],
      offset: 4,
    });
    expect(storages).toEqual([storage]);
  });

  it("takes the shortest opcode for an int, as CPython does", () => {
    const size = (int: number | bigint) => writePickle(int).byteLength - 3;
    expect([255, 256, 65535, 65536, -1, 2 ** 31, -(2 ** 31) - 1, 2n ** 63n].map(size)).toEqual([
      2, 3, 3, 5, 5, 7, 7, 11,
    ]);
  });

  it.each([
    ["a fraction as an int", 0.5],
    ["a number beyond 2^53", 2 ** 60],
    ["a name without a module", { global: "print" }],
    ["a name with a newline", { global: "a.b\nc" }],
  ])("refuses %s", (_, value) => {
    expect(() => writePickle(value as WrittenValue)).toThrowError(
      expect.objectContaining({ code: "INTERNAL" }),
    );
  });
});
