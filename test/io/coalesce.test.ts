/** Reads of a distant source: what is asked of it when many things are wanted, and that each gets its own bytes. */
import { beforeEach, describe, expect, it } from "vitest";
import type { ByteSource } from "../../src/core/io.ts";
import { coalesceReads } from "../../src/io/coalesce.ts";

const SIZE = 10_000;
const asked: (readonly [from: number, to: number])[] = [];
let failing = (_offset: number) => false;

beforeEach(() => {
  asked.length = 0;
  failing = () => false;
});

/** Byte i is i mod 251. */
const source: ByteSource = {
  url: "test:source",
  size: SIZE,
  async readInto(target, offset) {
    asked.push([offset, offset + target.byteLength]);
    if (failing(offset)) throw new Error("broken");
    for (let i = 0; i < target.byteLength; i++) target[i] = (offset + i) % 251;
  },
  async [Symbol.asyncDispose]() {},
};

const open = (aheadBytes = SIZE) => coalesceReads(source, { gapBytes: 10, sharedBytes: 1000, aheadBytes });

async function read(from: ByteSource, offset: number, size: number): Promise<void> {
  const target = new Uint8Array(size);
  await from.readInto(target, offset);
  expect([...target]).toEqual(Array.from(target, (_, i) => (offset + i) % 251));
}

describe("asked for together", () => {
  it.each<[string, [number, number][], [number, number][]]>([
    [
      "neighbours, in any order",
      [
        [50, 20],
        [0, 50],
      ],
      [[0, 70]],
    ],
    [
      "across a gap that is cheap",
      [
        [0, 50],
        [60, 10],
      ],
      [[0, 70]],
    ],
    [
      "not across a longer one",
      [
        [0, 50],
        [61, 10],
      ],
      [
        [0, 50],
        [61, 71],
      ],
    ],
    [
      "one inside another",
      [
        [0, 100],
        [20, 10],
        [105, 5],
      ],
      [[0, 110]],
    ],
    [
      "not beyond the longest request",
      [
        [0, 600],
        [600, 401],
      ],
      [
        [0, 600],
        [600, 1001],
      ],
    ],
    ["a long one alone is whole", [[0, 5000]], [[0, 5000]]],
  ])("%s", async (_, wanted, expected) => {
    const shared = open();
    await Promise.all(wanted.map(([offset, size]) => read(shared, offset, size)));
    expect(asked).toEqual(expected);
  });

  it("a failure reaches all who share it, and nobody else", async () => {
    failing = (offset) => offset === 0;
    const shared = open();
    const results = await Promise.allSettled(
      [
        [0, 5],
        [5, 5],
        [500, 5],
      ].map(([at, size]) => read(shared, at!, size!)),
    );
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected", "fulfilled"]);
  });
});

describe("ahead of a reader in order", () => {
  it("the next bytes are under way, and none is fetched twice", async () => {
    const shared = open(1000);
    for (let at = 0; at < SIZE; at += 500) await read(shared, at, 500);
    const bytes = asked.reduce((sum, [from, to]) => sum + to - from, 0);
    expect([bytes, asked.length]).toEqual([SIZE, 11]);
  });

  it("not for one who jumps, nor for one who reads little", async () => {
    const shared = open(1000);
    for (const at of [0, 2000, 4000]) await read(shared, at, 500);
    for (const at of [6000, 6010, 6020]) await read(shared, at, 10);
    expect(asked.length).toBe(6);
  });

  it("what failed ahead is asked for again", async () => {
    const shared = open(1000);
    await read(shared, 0, 500);
    failing = (offset) => offset === 1000 && asked.filter(([from]) => from === 1000).length === 1;
    await read(shared, 500, 500);
    await read(shared, 1000, 500);
    expect(asked.filter(([from]) => from === 1000).length).toBe(2);
  });
});
