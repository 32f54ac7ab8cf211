import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { encodeHeader, parseHeader, readHeader } from "../../formats/codec/safetensors.ts";
import type { Placement, WantedTensor, WriteRequest } from "../../formats/format.ts";
import { hf } from "../../formats/hf/format.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import { bytesOf, type DType } from "../../src/core/dtype.ts";
import { readRange, type Store } from "../../src/core/io.ts";
import { parseJson } from "../../src/core/json.ts";
import { fileStore } from "../../src/io/file.ts";
import { countedStore, memorySource, memoryStore } from "../support/memory-store.ts";

const fixtures = fileURLToPath(new URL("../../fixtures/", import.meta.url));
const golden = (name: string) => fileStore(`${fixtures}nemotron-h/${name}`);
const coded = (code: string, at: object = {}) =>
  expect.objectContaining({ code, at: expect.objectContaining(at) });
const writer = hf.writes!;

const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
/** A weight file of these tensors; every data byte is the index of its tensor. */
function weights(...names: readonly string[]): Uint8Array {
  const header = encodeHeader(
    names.map((name) => ({ name, dtype: "U8", shape: [3] }) as const),
    null,
  );
  const data = names.flatMap((_, i) => [i, i, i]);
  return Uint8Array.from([...header, ...data]);
}
const folder = (files: Record<string, Uint8Array>) => memoryStore("m", new Map(Object.entries(files)));
const index = (weight_map: Record<string, unknown>, metadata?: unknown) => text({ metadata, weight_map });

describe("goldens", () => {
  it.each([
    ["tiny", 58, ["model.safetensors"], Infinity],
    ["tiny-t5", 58, ["model.safetensors"], Infinity],
    ["sharded", 82, [1, 2, 3].map((k) => `model-0000${k}-of-00003.safetensors`), Infinity],
    ["moe", 133, ["model.safetensors"], Infinity],
    ["latent-moe", 199, ["model.safetensors"], Infinity],
  ])("%s: %i tensors", async (name, count, shards, limit) => {
    const { store, counts } = countedStore(await golden(name));
    expect(await hf.detect(store)).toBe("yes");
    const model = await hf.read(store);
    expect(model.tensors).toHaveLength(count);
    expect(model.weightFiles.map(({ path }) => path)).toEqual(shards);
    expect(model.config.model_type).toBe("nemotron_h");
    expect((model.config.time_step_limit as number[] | undefined)?.[1] ?? limit).toBe(limit);
    const all = (await store.list()).map(({ path }) => path);
    expect([...model.sidecars.map(({ path }) => path), ...shards].sort()).toEqual(all);
    for (const { header } of model.weightFiles) {
      expect(counts.get(header.file)).toEqual({ opened: 1, closed: 1, reads: 2, bytes: 8 + header.size });
    }
    const opened = [...counts.keys()].filter(
      (path) => path !== "config.json" && !path.endsWith("index.json"),
    );
    expect(opened.sort(), "nothing else is opened").toEqual(shards);
  });
});

describe("what is taken for a Hugging Face folder", () => {
  const w = weights("a");
  const config = text({});
  it.each([
    ["yes", ["config.json", "model.safetensors"]],
    ["yes", ["config.json", "model.safetensors.index.json"]],
    ["yes", ["config.json", "odd.safetensors"]],
    ["maybe", ["odd.safetensors"]],
    ["maybe", ["model.safetensors", "other.safetensors"]],
    ["no", ["config.json"]],
    ["maybe", ["config.json", "a.safetensors", "b.safetensors"]],
    ["no", ["a.safetensors", "b.safetensors"]],
    ["yes", ["config.json", "odd.safetensors", "._odd.safetensors", "adapter_model.safetensors"]],
    ["no", ["config.json", "sub/model.safetensors"]],
    ["no", ["x.isologit"]],
  ])("%s: %j", async (answer, paths) => {
    expect(await hf.detect(folder(Object.fromEntries(paths.map((path) => [path, w]))))).toBe(answer);
  });

  it("a lone file has no config", async () => {
    const model = await hf.read(await fileStore(`${fixtures}nemotron-h/tiny/model.safetensors`));
    expect(model.config).toEqual({});
    expect(model.sidecars).toEqual([]);
    expect(model.tensors).toHaveLength(58);
  });

  it("the single file wins over an index, as in Transformers", async () => {
    const model = await hf.read(
      folder({
        "config.json": config,
        "model.safetensors": w,
        "model.safetensors.index.json": index({ a: "s1.safetensors" }),
        "s1.safetensors": w,
      }),
    );
    expect(model.tensors.map(({ pieces }) => pieces[0]!.file)).toEqual(["model.safetensors"]);
    expect(model.remarks).toMatchObject([{ rule: "two-sets", severity: "error" }]);
    expect(model.sidecars.map(({ path }) => path)).toEqual([
      "config.json",
      "model.safetensors.index.json",
      "s1.safetensors",
    ]);
  });
});

describe("a folder that contradicts itself is refused", () => {
  const map = { a: "s1.safetensors", b: "s2.safetensors" };
  const sound = {
    "config.json": text({}),
    "model.safetensors.index.json": index(map, { total_size: 6 }),
    "s1.safetensors": weights("a"),
    "s2.safetensors": weights("b"),
  };
  const INDEX = "model.safetensors.index.json";

  it("and a sound one is read", async () => {
    const model = await hf.read(folder(sound));
    expect(model.tensors.map(({ name, pieces }) => [name, pieces[0]!.file])).toEqual(Object.entries(map));
  });

  it.each<[string, Record<string, Uint8Array>]>([
    ["index-omits", { "s1.safetensors": weights("a", "c"), [INDEX]: index(map) }],
    ["index-total", { [INDEX]: index(map, { total_size: 7 }) }],
  ])("what no loader minds is read and remarked: %s", async (rule, change) => {
    const model = await hf.read(folder({ ...sound, ...change }));
    expect(model.remarks).toMatchObject([{ rule, severity: "warning", at: { file: INDEX } }]);
  });

  it.each<[string, string, object, Record<string, Uint8Array>]>([
    [
      "a single file in the way",
      "INDEX_MISMATCH",
      { file: "model.safetensors" },
      { "model.safetensors": weights("a") },
    ],
    [
      "no tensor for an entry",
      "INDEX_MISMATCH",
      { file: INDEX, tensor: "c" },
      { [INDEX]: index({ ...map, c: "s1.safetensors" }) },
    ],
    [
      "files exchanged",
      "INDEX_MISMATCH",
      { file: INDEX, tensor: "a" },
      { [INDEX]: index({ a: map.b, b: map.a }) },
    ],
    [
      "a tensor in two files",
      "DUPLICATE_NAME",
      { file: "s2.safetensors", tensor: "a" },
      { "s2.safetensors": weights("b", "a") },
    ],
    [
      "a file not there",
      "NOT_FOUND",
      { file: "s3.safetensors" },
      { [INDEX]: index({ ...map, c: "s3.safetensors" }) },
    ],
    [
      "a file above",
      "PATH_UNSAFE",
      { file: INDEX, tensor: "a" },
      { [INDEX]: index({ a: "../s1.safetensors" }) },
    ],
    [
      "a file at the root",
      "PATH_UNSAFE",
      { file: INDEX, tensor: "a" },
      { [INDEX]: index({ a: "/s1.safetensors" }) },
    ],
    [
      "a file of Windows",
      "PATH_UNSAFE",
      { file: INDEX, tensor: "a" },
      { [INDEX]: index({ a: "..\\s1.safetensors" }) },
    ],
    ["no weight_map", "HEADER_INVALID", { file: INDEX }, { [INDEX]: text({ metadata: {} }) }],
    ["a number for a file", "HEADER_INVALID", { file: INDEX, tensor: "a" }, { [INDEX]: index({ a: 1 }) }],
    [
      "an entry twice",
      "DUPLICATE_NAME",
      { file: INDEX },
      { [INDEX]: new TextEncoder().encode('{"weight_map":{"a":"x","a":"y"}}') },
    ],
    ["a config that is none", "CONFIG_INVALID", { file: "config.json" }, { "config.json": text([]) }],
    [
      "a config that is no JSON",
      "CONFIG_INVALID",
      { file: "config.json" },
      { "config.json": new Uint8Array(3) },
    ],
    [
      "a config without end",
      "LIMIT_EXCEEDED",
      { file: "config.json" },
      { "config.json": new Uint8Array(2 ** 24 + 1) },
    ],
    [
      "a damaged file",
      "TRUNCATED",
      { file: "s2.safetensors" },
      { "s2.safetensors": weights("b").subarray(0, -1) },
    ],
  ])("%s: %s", async (_, code, at, change) => {
    await expect(hf.read(folder({ ...sound, ...change }))).rejects.toEqual(coded(code, at));
  });
});

// Writing

async function manifestOf(model: Checkpoint, change: Partial<WriteRequest> = {}): Promise<WriteRequest> {
  const shards = [];
  for (const { path, header } of model.weightFiles) {
    await using source = await model.store.open(header.file);
    shards.push({ path, header: await readRange(source, header.offset, header.size) });
  }
  const { config, dialect, tensors, sidecars } = model;
  return { config, dialect, tensors, objects: [], sidecars, weightFiles: shards, options: {}, ...change };
}

/** Carries a placement out, and checks on the way that every byte of every file is written exactly once. */
async function written(
  place: Placement,
  wanted: readonly WantedTensor[],
  bytesOfTensor: (name: string) => Promise<Uint8Array>,
  from: Store,
): Promise<Map<string, Uint8Array>> {
  const files = new Map(place.files.map(({ path, size }) => [path, new Uint8Array(size)]));
  const times = new Map(place.files.map(({ path, size }) => [path, new Uint8Array(size)]));
  expect(files.size, "no path twice").toBe(place.files.length);
  const put = (file: string, offset: number, bytes: Uint8Array) => {
    files.get(file)!.set(bytes, offset);
    for (let i = 0; i < bytes.byteLength; i++) times.get(file)![offset + i]!++;
  };
  expect(place.tensors.map(({ name }) => name)).toEqual(wanted.map(({ name }) => name));
  for (const { name, file, offset } of place.tensors) put(file, offset, await bytesOfTensor(name));
  for (const { file, offset, bytes } of place.inline) put(file, offset, bytes);
  for (const { file, offset, from: span } of place.copies) {
    await using source = await from.open(span.file);
    put(file, offset, await readRange(source, span.offset, span.size));
  }
  for (const [path, count] of times)
    expect(
      count.every((n) => n === 1),
      `${path} covered once`,
    ).toBe(true);
  return files;
}

async function stored(model: Checkpoint, name: string): Promise<Uint8Array> {
  const { pieces, dtype, shape } = model.tensors.find((tensor) => tensor.name === name)!;
  await using source = await model.store.open(pieces[0]!.file);
  return await readRange(source, pieces[0]!.offset, bytesOf(dtype, shape));
}

const zeros = (tensors: readonly WantedTensor[]) => async (name: string) => {
  const { dtype, shape } = tensors.find((tensor) => tensor.name === name)!;
  return new Uint8Array(bytesOf(dtype, shape));
};

describe("placed as spelt, a folder comes back byte for byte", () => {
  it.each(["tiny", "sharded", "moe", "latent-moe"])("%s", async (name) => {
    const model = await hf.read(await golden(name));
    const wanted = await manifestOf(model, { tensors: model.tensors.toReversed() });
    const files = await written(
      await writer.place(wanted),
      wanted.tensors,
      (n) => stored(model, n),
      model.store,
    );
    expect([...files.keys()].sort()).toEqual((await model.store.list()).map(({ path }) => path));
    for (const [path, bytes] of files) {
      expect(Buffer.compare(bytes, readFileSync(`${fixtures}nemotron-h/${name}/${path}`)), path).toBe(0);
    }
  });
});

describe("placed anew", () => {
  it.each([1, 20_000, 100_000, 400_000, 5e9])("in files of at most %i bytes", async (maxShardBytes) => {
    const model = await hf.read(await golden("sharded"));
    const wanted = await manifestOf(model, { options: { maxShardBytes } });
    const place = await writer.place(wanted);
    const files = await written(place, wanted.tensors, (name) => stored(model, name), model.store);
    const again = await hf.read(memoryStore("again", files));
    expect(again.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(
      model.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    );
    for (const { name } of model.tensors) {
      expect(Buffer.compare(await stored(again, name), await stored(model, name)), name).toBe(0);
    }
    for (const { path, header } of again.weightFiles) {
      const held = again.tensors.filter(({ pieces }) => pieces[0]!.file === path).length;
      if (held > 1) expect(files.get(path)!.byteLength).toBeLessThanOrEqual(maxShardBytes);
      expect(header.size % 8).toBe(0);
      const source = memorySource(path, files.get(path)!);
      expect((await readHeader(source)).metadata).toEqual({ format: "pt" });
    }
    const n = String(again.weightFiles.length).padStart(5, "0");
    expect(again.weightFiles.map(({ path }) => path)).toEqual(
      n === "00001"
        ? ["model.safetensors"]
        : again.weightFiles.map((_, k) => `model-${String(k + 1).padStart(5, "0")}-of-${n}.safetensors`),
    );
    expect(files.has("model.safetensors.index.json")).toBe(n !== "00001");
    expect(files.has("reference.safetensors")).toBe(true);
  });

  it("cut where Transformers cut it, the index is Transformers' own", async () => {
    const model = await hf.read(await golden("sharded"));
    // Each file of the golden, under its own headers as new ones: only the index is written by us.
    const wanted = await manifestOf(model, {
      sidecars: model.sidecars.filter(({ path }) => path !== "model.safetensors.index.json"),
    });
    const place = await writer.place(wanted);
    const ours = place.inline.find(({ file }) => file === "model.safetensors.index.json")!;
    const theirs = readFileSync(`${fixtures}nemotron-h/sharded/model.safetensors.index.json`, "utf8");
    expect(new TextDecoder().decode(ours.bytes)).toBe(theirs);
  });

  it("every tensor starts at a multiple of its element's width", async () => {
    const order: [DType, number][] = [
      ["U8", 3],
      ["F32", 1],
      ["BF16", 5],
      ["F64", 1],
      ["F4", 2],
      ["F32", 2],
    ];
    const tensors = order.map(([dtype, n], i) => ({ name: `t${i}`, dtype, shape: [n] }));
    const place = await writer.place({
      config: {},
      dialect: "hf",
      tensors,
      objects: [],
      sidecars: [],
      weightFiles: [],
      options: {},
    });
    for (const [i, { offset }] of place.tensors.entries()) {
      expect((offset * 8) % { U8: 8, F32: 32, BF16: 16, F64: 64, F4: 4 }[order[i]![0] as "U8"]).toBe(0);
    }
  });
});

describe("placed as sharded, when element types change", () => {
  it("each tensor stays in its file, and a scale goes with its weight", async () => {
    const model = await hf.read(await golden("sharded"));
    const tensors = model.tensors.toReversed().flatMap(({ name, dtype, shape }): WantedTensor[] =>
      name.endsWith("_proj.weight")
        ? [
            { name, dtype: "F8_E4M3", shape, recast: { kind: "fp8-e4m3", sourceDtype: dtype } },
            { name: `${name}_scale`, dtype: "F32", shape: [] },
          ]
        : [{ name, dtype, shape }],
    );
    const wanted = await manifestOf(model, { tensors });
    const files = await written(await writer.place(wanted), tensors, zeros(tensors), model.store);
    const again = await hf.read(memoryStore("again", files));
    expect(again.weightFiles.map(({ path }) => path)).toEqual(model.weightFiles.map(({ path }) => path));
    const fileOf = new Map(again.tensors.map(({ name, pieces }) => [name, pieces[0]!.file]));
    for (const { name, pieces } of model.tensors) {
      expect(fileOf.get(name)).toBe(pieces[0]!.file);
      if (name.endsWith("_proj.weight")) expect(fileOf.get(`${name}_scale`)).toBe(pieces[0]!.file);
    }
    const old = model.tensors.map(({ name }) => name);
    expect(again.tensors.map(({ name }) => name).filter((name) => old.includes(name))).toEqual(old);
    const total = parseJson(files.get("model.safetensors.index.json")!) as {
      metadata: { total_size: number };
    };
    const bytes = tensors.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
    expect(total.metadata.total_size).toBe(bytes);
  });

  it("one file stays one file, without an index", async () => {
    const model = await hf.read(await golden("tiny"));
    const tensors = model.tensors.map(({ name, shape }) => ({ name, dtype: "F32", shape }) as const);
    const place = await writer.place(await manifestOf(model, { tensors }));
    const paths = place.files.map(({ path }) => path);
    expect(paths[0]).toBe("model.safetensors");
    expect(paths).not.toContain("model.safetensors.index.json");
  });

  it("a change of shape alone is one too, and a header's metadata stays", async () => {
    const [a, b]: WantedTensor[] = [
      { name: "a", dtype: "F32", shape: [2, 3] },
      { name: "b", dtype: "F32", shape: [1] },
    ];
    const shards = [{ path: "x.safetensors", header: encodeHeader([b!, a!], { by: "hand" }) }];
    const tensors = [{ ...a!, shape: [3, 2] }, b!];
    const place = await writer.place({
      config: {},
      dialect: "hf",
      tensors,
      objects: [],
      sidecars: [],
      weightFiles: shards,
      options: {},
    });
    const header = parseHeader(place.inline[0]!.bytes, "x.safetensors");
    expect(header.metadata).toEqual({ by: "hand" });
    expect(header.tensors.map(({ name, shape }) => [name, shape])).toEqual([
      ["b", [1]],
      ["a", [3, 2]],
    ]);
    expect(place.files).toEqual([{ path: "x.safetensors", size: header.size }]);
  });

  it("headers of another model say nothing", async () => {
    const model = await hf.read(await golden("sharded"));
    const tensors = [{ name: "other", dtype: "F32", shape: [2] }] as const;
    const place = await writer.place(await manifestOf(model, { tensors }));
    expect(place.tensors).toEqual([{ name: "other", file: "model.safetensors", offset: expect.any(Number) }]);
    expect(place.files.map(({ path }) => path)).not.toContain("model.safetensors.index.json");
  });
});

describe("what cannot be placed", () => {
  const a: WantedTensor = { name: "a", dtype: "F32", shape: [1] };
  const bytes = new Uint8Array(1);
  const base: WriteRequest = {
    config: {},
    dialect: "hf",
    tensors: [a],
    objects: [],
    sidecars: [],
    weightFiles: [],
    options: {},
  };
  it.each<[string, string, Partial<WriteRequest>]>([
    ["a side file above", "PATH_UNSAFE", { sidecars: [{ path: "../x", bytes }] }],
    [
      "a side file at the root",
      "PATH_UNSAFE",
      { sidecars: [{ path: "/x", span: { file: "x", offset: 0, size: 1 } }] },
    ],
    [
      "a side file under the weights' name",
      "PLAN_IMPOSSIBLE",
      { sidecars: [{ path: "model.safetensors", bytes }] },
    ],
    [
      "a side file twice",
      "PLAN_IMPOSSIBLE",
      {
        sidecars: [
          { path: "x", bytes },
          { path: "x", bytes },
        ],
      },
    ],
    [
      "a weight file above",
      "PATH_UNSAFE",
      { weightFiles: [{ path: "../x.safetensors", header: encodeHeader([a], null) }] },
    ],
    [
      "a header with more behind it",
      "TRAILING_BYTES",
      { weightFiles: [{ path: "x", header: Uint8Array.from([...encodeHeader([a], null), 0]) }] },
    ],
    ["a header that is none", "TRUNCATED", { weightFiles: [{ path: "x", header: bytes }] }],
    ["a tensor twice", "DUPLICATE_NAME", { tensors: [a, a] }],
    [
      "a tensor twice, as spelt",
      "DUPLICATE_NAME",
      { tensors: [a, a], weightFiles: [{ path: "x", header: encodeHeader([a], null) }] },
    ],
    ["a tensor twice, in two files", "DUPLICATE_NAME", { tensors: [a, a], options: { maxShardBytes: 1 } }],
  ])("%s: %s", async (_, code, change) => {
    await expect(writer.place({ ...base, ...change })).rejects.toMatchObject({ code });
  });

  it("an empty side file is a file with nothing to write", async () => {
    const place = await writer.place({ ...base, sidecars: [{ path: "empty", bytes: new Uint8Array(0) }] });
    expect(place.files).toContainEqual({ path: "empty", size: 0 });
    expect(place.inline.some(({ file }) => file === "empty")).toBe(false);
  });
});
