/** A tensor in pieces, whatever their cut, is read in bands of any size as if it were one run of bytes. */
import { describe, expect, it } from "vitest";
import type { Piece, Tensor } from "../../src/core/checkpoint.ts";
import { countOf, type Shape, stridesOf } from "../../src/core/dtype.ts";
import { extentsOf, Sources } from "../../src/core/read.ts";
import { countedStore, memoryStore } from "../support/memory-store.ts";
import { randomFrom } from "../support/random.ts";

/** Elements 0, 1, 2 … of a shape, cut along every axis at random places; some pieces are stored by columns. */
function cutAtRandom(shape: Shape, random: (n: number) => number) {
  const cuts = shape.map((size) => {
    const places = new Set([0, size]);
    for (let i = random(3); i > 0; i--) places.add(random(size));
    return [...places].sort((a, b) => a - b);
  });
  const strides = stridesOf(shape);
  const files = new Map<string, Uint8Array>();
  const pieces: Piece[] = [];
  const build = (origin: Shape, size: Shape): void => {
    const axis = origin.length;
    if (axis < shape.length) {
      for (const [i, from] of cuts[axis]!.slice(0, -1).entries())
        build([...origin, from], [...size, cuts[axis]![i + 1]! - from]);
      return;
    }
    const own = random(3) === 0 ? stridesOf([...size].reverse()).toReversed() : undefined;
    const values = new Uint16Array(countOf(size));
    for (let i = 0; i < values.length; i++) {
      const index = stridesOf(size).map((stride, j) => Math.floor(i / stride) % size[j]!);
      const at = (by: Shape) => index.reduce((sum, n, j) => sum + n * by[j]!, 0);
      values[at(own ?? stridesOf(size))] =
        at(strides) + origin.reduce((sum, n, j) => sum + n * strides[j]!, 0);
    }
    const offset = random(5);
    const file = `piece-${pieces.length}`;
    files.set(file, Buffer.concat([Buffer.alloc(offset), Buffer.from(values.buffer)]));
    pieces.push({ file, offset, start: origin, shape: size, ...(own && { strides: own }) });
  };
  build([], []);
  const tensor: Tensor = { name: "t", dtype: "BF16", shape, pieces };
  return { tensor, store: memoryStore("memory", files) };
}

describe("extents of pieces", () => {
  it.each([[[23]], [[7, 10]], [[12, 1, 4]], [[3, 5, 6]], [[2, 3, 4, 5]]])("%j", async (shape) => {
    for (let seed = 0; seed < 20; seed++) {
      const random = randomFrom(seed);
      const { tensor, store } = cutAtRandom(shape, random);
      await using sources = new Sources(store);
      const count = countOf(shape);
      const step = 1 + random(count);
      const all: number[] = [];
      for (let lo = 0; lo < count; lo += step) {
        const hi = Math.min(count, lo + step);
        const band = new Uint16Array(hi - lo);
        await sources.read(extentsOf(tensor, lo, hi), new Uint8Array(band.buffer));
        all.push(...band);
      }
      expect(all, `seed ${seed}`).toEqual(Array.from({ length: count }, (_, i) => i));
    }
  });
});

describe("a store of more files than may be open", () => {
  const files = new Map(Array.from({ length: 1000 }, (_, i) => [`${i}`, Uint8Array.of(i % 251)]));
  const { store, counts } = countedStore(memoryStore("memory", files));
  const openNow = () => [...counts.values()].reduce((sum, { opened, closed }) => sum + opened - closed, 0);

  it("is read with a bounded number open, the latest ones opened once", async () => {
    let most = 0;
    {
      await using sources = new Sources(store, 8);
      for (let i = 0; i < 1000; i++) {
        for (const path of [`${i}`, "0"]) // one that is read all the time
          expect(await sources.bytes(path, 0, 1)).toEqual(files.get(path));
        most = Math.max(most, openNow());
      }
    }
    expect(most).toBe(8);
    expect(counts.get("0")).toMatchObject({ opened: 1, reads: 1001 });
    expect(openNow()).toBe(0);
  });

  it("closes none that is being read", async () => {
    await using sources = new Sources(store, 2);
    let open = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const reading = ["1", "2", "3"].map((path) =>
      sources.use(path, async (source) => {
        await gate;
        const { closed } = counts.get(path)!;
        await source.readInto(new Uint8Array(1), 0);
        return closed;
      }),
    );
    const before = ["1", "2", "3"].map((path) => counts.get(path)!.closed);
    for (let i = 10; i < 20; i++) await sources.bytes(`${i}`, 0, 1);
    open();
    expect(await Promise.all(reading)).toEqual(before);
    expect(openNow()).toBe(2);
  });
});

describe("a tensor of quantised blocks", () => {
  const shape = [4, 512];
  const pieces: Piece[] = [{ file: "f", offset: 7, start: [0, 0], shape }];
  const tensor: Tensor = { name: "t", dtype: "Q4_K", shape, pieces };

  it("is read in whole blocks", () => {
    expect(extentsOf(tensor, 256, 1024)).toEqual([{ file: "f", offset: 7 + 144, to: 0, size: 3 * 144 }]);
  });

  it("is not read in parts of blocks", () => {
    for (const [lo, hi] of [
      [0, 128],
      [32, 288],
    ] as const)
      expect(() => extentsOf(tensor, lo, hi)).toThrow(/columns inside such a block/);
    const columns: Piece = { file: "f", offset: 0, start: [0, 0], shape: [4, 128], strides: [512, 1] };
    expect(() => extentsOf({ ...tensor, shape: [4, 128], pieces: [columns] }, 0, 512)).toThrow(/Q4_K/);
  });
});
