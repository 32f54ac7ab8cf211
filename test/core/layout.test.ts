import { describe, expect, it } from "vitest";
import { countOf, type Shape, stridesOf } from "../../src/core/dtype.ts";
import {
  concat,
  indexRuns,
  type Layout,
  leaf,
  movesOf,
  shapeOf,
  slice,
  take,
} from "../../src/core/mapping/layout.ts";
import { findCoverFault, invertMoves, runsOf } from "../../src/core/mapping/moves.ts";
import { randomFrom } from "../support/random.ts";

/** The meaning of a layout, element by element, with no strides: the oracle. Zeros are null. */
function evaluate(layout: Layout): (string | null)[] {
  const shape = shapeOf(layout);
  const at = (index: readonly number[], of: Layout) => evaluateAll(of)[flat(index, shapeOf(of))]!;
  return everyIndex(shape).map((index) => {
    switch (layout.op) {
      case "leaf":
        return `${layout.of}:${flat(index, shape)}`;
      case "slice":
        return at(index.with(layout.axis, index[layout.axis]! + layout.from), layout.of);
      case "concat": {
        let axisIndex = index[layout.axis]!;
        for (const part of layout.parts) {
          const size = shapeOf(part)[layout.axis]!;
          if (axisIndex < size) return at(index.with(layout.axis, axisIndex), part);
          axisIndex -= size;
        }
        throw new Error("outside");
      }
      case "take":
        return at(index.with(layout.axis, layout.indices[index[layout.axis]!]!), layout.of);
      case "pad":
        return index[0]! < shapeOf(layout.of)[0]! ? at(index, layout.of) : null;
      case "reshape":
        return evaluateAll(layout.of)[flat(index, shape)]!;
      case "transpose": {
        const inner = new Array<number>(shape.length);
        for (const [to, from] of layout.axes.entries()) inner[from] = index[to]!;
        return at(inner, layout.of);
      }
      default:
        return layout satisfies never;
    }
  });
}

const memo = new Map<Layout, (string | null)[]>();
function evaluateAll(layout: Layout): (string | null)[] {
  const known = memo.get(layout) ?? evaluate(layout);
  memo.set(layout, known);
  return known;
}

const flat = (index: readonly number[], shape: Shape) =>
  stridesOf(shape).reduce((sum, stride, i) => sum + stride * index[i]!, 0);

function everyIndex(shape: Shape): number[][] {
  return shape.reduce<number[][]>(
    (all, size) => all.flatMap((index) => Array.from({ length: size }, (_, i) => [...index, i])),
    [[]],
  );
}

/** What the moves say: each destination element's origin, and how often it is written. */
function carried(layout: Layout): (string | null)[] {
  const out = new Array<string | null | undefined>(countOf(shapeOf(layout)));
  for (const { of, from, to, count } of runsOf(movesOf(layout), -Infinity, Infinity)) {
    for (let i = 0; i < count; i++) {
      if (out[to + i] !== undefined) throw new Error(`element ${to + i} is written twice`);
      out[to + i] = of === null ? null : `${of}:${from + i}`;
    }
  }
  return out as (string | null)[];
}

/** A random expression of rank up to 4, a few operations deep. */
function randomLayout(pick: (n: number) => number, depth: number): Layout {
  const size = () => 1 + pick(5);
  if (depth === 0) return leaf(`t${pick(1000)}`, Array.from({ length: 1 + pick(3) }, size));
  const of = randomLayout(pick, depth - 1);
  const shape = shapeOf(of);
  const axis = pick(shape.length);
  switch (pick(7)) {
    case 0: {
      const from = pick(shape[axis]!);
      return slice(of, axis, from, from + 1 + pick(shape[axis]! - from));
    }
    case 1:
      return concat(axis, [of, leaf(`t${pick(1000)}`, shape.with(axis, size())), of]);
    case 2:
      return { op: "pad", of, rows: shape[0]! + pick(4) };
    case 3: {
      const merged =
        axis + 1 < shape.length ? shape.toSpliced(axis, 2, shape[axis]! * shape[axis + 1]!) : shape;
      const i = pick(merged.length);
      const factor = [2, 3, 4].find((f) => merged[i]! % f === 0) ?? 1;
      return {
        op: "reshape",
        of,
        shape: merged.length < 4 ? merged.toSpliced(i, 1, merged[i]! / factor, factor) : merged,
      };
    }
    case 4: {
      const axes = shape.map((_, i) => i);
      for (let i = axes.length - 1; i > 0; i--) {
        const j = pick(i + 1);
        [axes[i], axes[j]] = [axes[j]!, axes[i]!];
      }
      return { op: "transpose", of, axes };
    }
    case 5: {
      const indices = Array.from({ length: shape[axis]! }, (_, i) => i).filter(() => pick(3) > 0);
      return take(of, axis, indices.length > 0 ? indices : [pick(shape[axis]!)]);
    }
    default:
      return of;
  }
}

describe("moves say what the expression says", () => {
  it("over 3,000 random expressions up to 5 deep", () => {
    const pick = randomFrom(7);
    for (let n = 0; n < 3000; n++) {
      const layout = randomLayout(pick, 1 + pick(5));
      if (countOf(shapeOf(layout)) > 4000) continue;
      memo.clear();
      const got = carried(layout);
      const want = evaluateAll(layout);
      if (JSON.stringify(got) !== JSON.stringify(want))
        expect.fail(`${JSON.stringify(layout)}\n${got}\n${want}`);
    }
  });

  it("and any interval query gives the same part of them", () => {
    const pick = randomFrom(11);
    for (let n = 0; n < 500; n++) {
      const layout = randomLayout(pick, 1 + pick(4));
      const count = countOf(shapeOf(layout));
      if (count > 2000) continue;
      const whole = carried(layout);
      const lo = pick(count);
      const hi = lo + 1 + pick(count - lo);
      const seen = new Map<number, string | null>();
      for (const run of runsOf(movesOf(layout), lo, hi)) {
        for (let i = 0; i < run.count; i++)
          seen.set(run.to + i, run.of === null ? null : `${run.of}:${run.from + i}`);
      }
      expect([...seen.keys()].sort((a, b) => a - b)).toEqual(
        Array.from({ length: hi - lo }, (_, i) => lo + i),
      );
      for (const [to, origin] of seen) expect(origin).toBe(whole[to]);
    }
  });
});

describe("take", () => {
  it("of rows and of columns has one box for each run of consecutive indices", () => {
    const kept = [0, 1, 2, 5, 7, 8];
    expect(indexRuns(kept)).toEqual([
      { from: 0, to: 3 },
      { from: 5, to: 6 },
      { from: 7, to: 9 },
    ]);
    expect(movesOf(take(leaf("a", [9, 4]), 0, kept))).toHaveLength(3);
    expect(movesOf(take(leaf("a", [4, 9]), 1, kept))).toHaveLength(3);
    expect(movesOf(take(leaf("a", [9, 4]), 0, [...Array(9).keys()]))).toEqual(movesOf(leaf("a", [9, 4])));
  });

  it("refuses indices out of order, twice, or outside", () => {
    for (const indices of [[2, 1], [1, 1], [0, 4], [-1], [0.5]])
      expect(() => movesOf(take(leaf("a", [4, 2]), 0, indices)), String(indices)).toThrow(
        "take does not fit",
      );
  });

  it("has no more moves for 2^31 elements than for few", () => {
    const kept = Array.from({ length: 100 }, (_, i) => 3 * i);
    expect(movesOf(take(leaf("a", [131072, 16384]), 1, kept))).toHaveLength(100);
    expect(movesOf(take(leaf("a", [131072, 16384]), 0, kept))).toHaveLength(100);
  });
});

describe("inverse", () => {
  /** Grouped QKV as Megatron stores it: for each group its queries, then k, then v. */
  const qkv = (groups: number, perGroup: number, dim: number, width: number): Layout => {
    const q = leaf("q", [groups * perGroup * dim, width]);
    const [k, v] = [leaf("k", [groups * dim, width]), leaf("v", [groups * dim, width])];
    return concat(
      0,
      Array.from({ length: groups }, (_, g) => [
        slice(q, 0, g * perGroup * dim, (g + 1) * perGroup * dim),
        slice(k, 0, g * dim, (g + 1) * dim),
        slice(v, 0, g * dim, (g + 1) * dim),
      ]).flat(),
    );
  };

  it.each([
    [1, 1, 2, 3],
    [2, 4, 3, 5],
    [8, 2, 4, 1],
  ])("of grouped qkv gives each element of q, k and v once (%i groups)", (groups, perGroup, dim, width) => {
    const layout = qkv(groups, perGroup, dim, width);
    const inverse = invertMoves(movesOf(layout), "qkv");
    expect(findCoverFault(inverse.get("q")!, groups * perGroup * dim * width)).toEqual({ ok: true });
    expect(findCoverFault(inverse.get("k")!, groups * dim * width)).toEqual({ ok: true });
    expect(findCoverFault(inverse.get("v")!, groups * dim * width)).toEqual({ ok: true });
  });

  it("twice is the identity, over random expressions without padding", () => {
    const pick = randomFrom(3);
    for (let n = 0; n < 500; n++) {
      const layout = randomLayout(pick, 1 + pick(4));
      const there = new Map<string, string>();
      for (const { of, from, to, count } of runsOf(movesOf(layout), -Infinity, Infinity)) {
        for (let i = 0; of !== null && i < count; i++) there.set(`whole:${to + i}`, `${of}:${from + i}`);
      }
      const back = new Map<string, string>();
      for (const [of, moves] of invertMoves(movesOf(layout), "whole")) {
        for (const run of runsOf(moves, -Infinity, Infinity)) {
          for (let i = 0; i < run.count; i++) back.set(`whole:${run.from + i}`, `${of}:${run.to + i}`);
        }
      }
      expect(back).toEqual(there);
    }
  });
});

describe("cover", () => {
  const whole = movesOf(leaf("a", [4, 6]));
  const columns = (from: number, to: number) =>
    invertMoves(movesOf(slice(leaf("a", [4, 6]), 1, from, to)), "shard").get("a")!;

  it("sees a whole", () => expect(findCoverFault(whole, 24)).toEqual({ ok: true }));
  it("sees column shards as a whole", () =>
    expect(findCoverFault([...columns(0, 2), ...columns(2, 6)], 24)).toEqual({ ok: true }));
  it("sees a hole", () =>
    expect(findCoverFault([...columns(0, 2), ...columns(3, 6)], 24)).toEqual({
      ok: false,
      at: 2,
      fault: "missing",
    }));
  it("sees an overlap", () =>
    expect(findCoverFault([...columns(0, 3), ...columns(2, 6)], 24)).toEqual({
      ok: false,
      at: 2,
      fault: "twice",
    }));
  it("sees too little", () =>
    expect(findCoverFault(whole, 25)).toEqual({ ok: false, at: 24, fault: "missing" }));
  it("sees too much", () =>
    expect(findCoverFault(whole, 23)).toEqual({ ok: false, at: 23, fault: "outside" }));
});

it("stays small at real sizes: a 56B in_proj from eight shards is a few boxes", () => {
  const [rows, width] = [16384 * 2 + 2 * 2048 + 256, 8192];
  const role = leaf("ssm.in", [rows, width]);
  const shard = (tp: number) => {
    const run = (at: number, size: number) =>
      slice(role, 0, at + (tp * size) / 8, at + ((tp + 1) * size) / 8);
    return concat(0, [run(0, 16384), run(16384, 16384), run(32768, 2048), run(34816, 2048), run(36864, 256)]);
  };
  const moves = Array.from(
    { length: 8 },
    (_, tp) => invertMoves(movesOf(shard(tp)), `in.${tp}`).get("ssm.in")!,
  ).flat();
  expect(moves.length).toBe(40);
  expect(findCoverFault(moves, rows * width)).toEqual({ ok: true });
});
