/** zarr arrays as tensors: chunks tile them, and lie where they say. */
import { describe, expect, it } from "vitest";
import { readZarr, zarrNames } from "../../../formats/codec/zarr.ts";
import type { Shape } from "../../../src/core/dtype.ts";
import { extentsOf, Sources } from "../../../src/core/read.ts";
import { codeOf } from "../../support/errors.ts";
import { memoryStore } from "../../support/memory-store.ts";

interface Array2 {
  readonly shape: Shape;
  readonly chunks: Shape;
}

/** A folder as Megatron writes it, element i (in C order, 4 bytes) holding i; chunks are full, -1 past the edge. */
function folder({ shape, chunks }: Array2, over: object = {}): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  const json = { chunks, compressor: null, dtype: "<i4", fill_value: null, filters: null, order: "C", shape };
  files.set("weights/w.x/.zarray", Buffer.from(JSON.stringify({ ...json, zarr_format: 2, ...over })));
  const [rows, columns] = shape as [number, number];
  const [high, wide] = chunks as [number, number];
  for (let r = 0; r * high < rows; r++) {
    for (let c = 0; c * wide < columns; c++) {
      const values = Array.from({ length: high * wide }, (_, i) => {
        const [y, x] = [r * high + Math.floor(i / wide), c * wide + (i % wide)];
        return y < rows && x < columns ? y * columns + x : -1;
      });
      files.set(`weights/w.x/${r}.${c}`, new Uint8Array(Int32Array.from(values).buffer));
    }
  }
  return files;
}

const read = (files: ReadonlyMap<string, Uint8Array>) => readZarr(memoryStore("m", files), "weights/");

describe("an array", () => {
  it.each([
    [
      [6, 4],
      [3, 4],
    ],
    [
      [6, 4],
      [6, 2],
    ],
    [
      [5, 7],
      [2, 3],
    ],
    [
      [1, 1],
      [1, 1],
    ],
    [
      [4, 4],
      [8, 8],
    ],
  ])("%j in chunks %j is read whole", async (shape, chunks) => {
    const store = memoryStore("m", folder({ shape, chunks }));
    const [tensor] = await readZarr(store, "weights/");
    expect(tensor).toMatchObject({ name: "w.x", dtype: "I32", shape });
    const count = shape[0]! * shape[1]!;
    const target = new Uint8Array(count * 4);
    await using sources = new Sources(store);
    await sources.read(extentsOf(tensor!, 0, count), target);
    expect([...new Int32Array(target.buffer)]).toEqual([...Array(count).keys()]);
  });

  it.each([
    ["bfloat16", "BF16", 2],
    ["<V2", "BF16", 2],
    ["<f2", "F16", 2],
    ["|u1", "U8", 1],
  ])("of type %s is %s", async (dtype, ours, width) => {
    const files = folder({ shape: [2, 2], chunks: [2, 2] }, { dtype });
    files.set("weights/w.x/0.0", new Uint8Array(4 * (width as number)));
    expect((await read(files))[0]).toMatchObject({ dtype: ours });
  });

  it("of no dimension has one chunk", async () => {
    const files = folder({ shape: [1, 1], chunks: [1, 1] }, { shape: [], chunks: [] });
    files.set("weights/w.x/0", new Uint8Array(4));
    expect((await read(files))[0]).toMatchObject({ shape: [], pieces: [{ file: "weights/w.x/0" }] });
  });
});

it("locks beside arrays are no arrays", () => {
  expect(zarrNames(["weights/a/.zarray", "weights/a.sync/.zarray", "other/b/.zarray"], "weights/")).toEqual([
    "a",
  ]);
});

describe("refuses", () => {
  const whole: Array2 = { shape: [4, 4], chunks: [2, 4] };
  it.each([
    ["a compressor", { compressor: { id: "blosc" } }, "UNSUPPORTED", "blosc"],
    ["filters", { filters: [{ id: "delta" }] }, "UNSUPPORTED", "delta"],
    ["Fortran order", { order: "F" }, "UNSUPPORTED", "order"],
    ["version 3", { zarr_format: 3 }, "VERSION_UNSUPPORTED", "3"],
    ["big-endian numbers", { dtype: ">f4" }, "DTYPE_UNKNOWN", ">f4"],
    ["chunks of another rank", { chunks: [4] }, "HEADER_INVALID", "chunks"],
    ["chunks of nothing", { chunks: [0, 4] }, "HEADER_INVALID", "chunks"],
    ["a negative size", { shape: [-4, 4] }, "HEADER_INVALID", "shape"],
    ["a size beyond all files", { shape: [2 ** 52, 2 ** 52] }, "SIZE_UNSAFE", "2^53"],
    ["more chunks than ranks", { shape: [2 ** 40, 1], chunks: [1, 1] }, "LIMIT_EXCEEDED", "chunks"],
  ])("%s", async (_, over, code, named) => {
    const error = await read(folder(whole, over)).catch((e: unknown) => e);
    expect(error).toMatchObject({ code, at: { file: "weights/w.x/.zarray", tensor: "w.x" } });
    expect((error as Error).message).toContain(named);
  });

  it("a chunk that is lost, cut or too long", async () => {
    const change = (bytes: number | null) => {
      const files = folder(whole);
      if (bytes === null) files.delete("weights/w.x/1.0");
      else files.set("weights/w.x/1.0", new Uint8Array(bytes));
      return codeOf(() => read(files));
    };
    expect([await change(null), await change(31), await change(33), await change(32)]).toEqual([
      "TENSOR_MISSING",
      "TRUNCATED",
      "TRAILING_BYTES",
      "no error",
    ]);
  });
});
