import { readdirSync, readFileSync } from "node:fs";
// @ts-expect-error the package brings no types; what is used of it: new SafeTensor(bytes).metadata, a Map
import { SafeTensor } from "safetensors";
import { describe, expect, it } from "vitest";
import { hostileSafetensors } from "../../../fixtures/generate/hostile-safetensors.ts";
import { encodeHeader, headerBytesOf, parseHeader, readHeader } from "../../../formats/codec/safetensors.ts";
import { DTYPES } from "../../../src/core/dtype.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import { countedStore, memorySource, memoryStore } from "../../support/memory-store.ts";

const hostile = new URL("../../../fixtures/hostile/safetensors/", import.meta.url);
const expected: Record<string, string> = JSON.parse(readFileSync(new URL("expected.json", hostile), "utf8"));

const read = (bytes: Uint8Array, file = "x.safetensors") => readHeader(memorySource(file, bytes));
const errorOf = (bytes: Uint8Array, file?: string) =>
  read(bytes, file).then(
    () => expect.fail("it was read"),
    (error: unknown) => error as IsologitError,
  );
function fileOf(header: Uint8Array, data: number): Uint8Array {
  const bytes = new Uint8Array(header.byteLength + data);
  bytes.set(header);
  return bytes;
}

describe("a hostile file is refused by its rule", () => {
  it.each(Object.entries(expected))("%s: %s", async (name, code) => {
    const error = await errorOf(readFileSync(new URL(name, hostile)), name);
    expect(error).toBeInstanceOf(IsologitError);
    expect(error.code, error.message).toBe(code);
    expect(error.at.file).toBe(name);
  });

  it("and each file is what the generator makes", () => {
    const made = hostileSafetensors();
    expect(readdirSync(hostile).sort()).toEqual(["expected.json", ...made.map(({ name }) => name)].sort());
    for (const { name, code, bytes } of made) {
      expect(expected[name]).toBe(code);
      expect(new Uint8Array(readFileSync(new URL(name, hostile))), name).toEqual(bytes);
    }
  });

  it("says which tensor, and where", async () => {
    const header = encodeHeader([{ name: "w", dtype: "F32", shape: [4] }], null);
    const cut = await errorOf(fileOf(header, 15));
    expect(cut.at).toEqual({ file: "x.safetensors", tensor: "w", offset: header.byteLength + 15 });
    const more = await errorOf(fileOf(header, 17));
    expect(more.at).toEqual({ file: "x.safetensors", offset: header.byteLength + 16 });
  });
});

it("cut at any byte, a file is refused and never misread", async () => {
  const header = encodeHeader([{ name: "w", dtype: "BF16", shape: [2, 3] }], { format: "pt" });
  const whole = fileOf(header, 12);
  for (let size = 0; size < whole.byteLength; size++) {
    expect((await errorOf(whole.subarray(0, size))).code).toBe("TRUNCATED");
  }
  expect((await read(whole)).tensors).toHaveLength(1);
});

describe("a header comes back as it was written", () => {
  const tensors = [
    { name: "scalar", dtype: "F32", shape: [] },
    { name: "nothing", dtype: "BF16", shape: [3, 0, 2] },
    { name: 'naïve 😀 "q" \\', dtype: "I64", shape: [2] },
    { name: "constructor", dtype: "U8", shape: [3] },
    { name: "7", dtype: "F4", shape: [2, 4] },
    { name: "last and empty", dtype: "F64", shape: [0] },
  ] as const;

  it("in order, tiling its data", async () => {
    const bytes = encodeHeader(tensors, { format: "pt", "a b": "ü" });
    expect(bytes.byteLength % 8).toBe(0);
    const header = await read(fileOf(bytes, 4 + 16 + 3 + 4));
    expect(header.metadata).toEqual({ format: "pt", "a b": "ü" });
    expect(header.dataOffset).toBe(bytes.byteLength);
    expect(header.tensors.map(({ begin, end }) => end - begin)).toEqual([4, 0, 16, 3, 4, 0]);
    expect(header.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(tensors);
    expect(header.size).toBe(bytes.byteLength + 27);
  });

  it("of every element type", async () => {
    const all = DTYPES.map((dtype) => ({ name: dtype, dtype, shape: [8] }));
    const header = parseHeader(encodeHeader(all, null), "x");
    expect(header.tensors.map(({ dtype }) => dtype)).toEqual(DTYPES);
    expect(header.metadata).toBeNull();
  });

  it("and its size is known before", () => {
    let begin = 0;
    let bytes = '{"__metadata__":{"format":"pt"}}'.length + 8;
    for (const tensor of tensors) {
      bytes += headerBytesOf(tensor, begin);
      begin += { F32: 4, BF16: 0, I64: 16, U8: 3, F4: 4, F64: 0 }[tensor.dtype];
    }
    expect(encodeHeader(tensors, { format: "pt" }).byteLength).toBe(Math.ceil(bytes / 8) * 8);
  });

  it("unless it has a name twice, or one that no reader should see", () => {
    const w = { name: "w", dtype: "F32", shape: [1] } as const;
    expect(() => encodeHeader([w, w], null)).toThrow(expect.objectContaining({ code: "DUPLICATE_NAME" }));
    for (const name of ["", "__proto__", "__metadata__", "a\0", "\udc00"]) {
      expect(() => encodeHeader([{ ...w, name }], null)).toThrow(
        expect.objectContaining({ code: "NAME_INVALID" }),
      );
    }
  });
});

it("an empty tensor shares its place with the next, whichever the header lists first", () => {
  const entry = (end: number) => ({ dtype: "U8", shape: [end], data_offsets: [0, end] });
  const json = new TextEncoder().encode(JSON.stringify({ full: entry(3), empty: entry(0) }));
  const bytes = Uint8Array.from([json.byteLength, 0, 0, 0, 0, 0, 0, 0, ...json]);
  expect(parseHeader(bytes, "x").tensors.map(({ name }) => name)).toEqual(["empty", "full"]);
});

it("reads the header in two pieces and no byte of a tensor", async () => {
  const bytes = encodeHeader([{ name: "w", dtype: "U8", shape: [100_000] }], null);
  const { store, counts } = countedStore(memoryStore("m", new Map([["w", fileOf(bytes, 100_000)]])));
  {
    await using source = await store.open("w");
    await readHeader(source);
  }
  expect(counts.get("w")).toEqual({ opened: 1, closed: 1, reads: 2, bytes: 8 + bytes.byteLength });
});

it("the npm package `safetensors` reads the same, where there is no metadata", async () => {
  const tensors = [
    { name: "a", dtype: "F32", shape: [2, 2] },
    { name: "b", dtype: "BF16", shape: [3] },
  ] as const;
  const bytes = fileOf(encodeHeader(tensors, null), 22);
  const other = new SafeTensor(bytes);
  const ours = await read(bytes);
  for (const { name, dtype, shape, begin, end } of ours.tensors) {
    expect(other.metadata.get(name)).toEqual({ dtype, shape, data_offsets: [begin, end] });
  }
});
