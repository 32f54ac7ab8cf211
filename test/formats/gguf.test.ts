/** GGUF: files of llama.cpp's own tools read as they are, and files that break one rule each are refused by name. */
import { cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ggufFacts } from "../../formats/gguf/facts.ts";
import { gguf } from "../../formats/gguf/format.ts";
import { check } from "../../src/api/check.ts";
import { diff } from "../../src/api/diff.ts";
import { inspect } from "../../src/api/inspect.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import { sha256 } from "../../src/core/hash.ts";
import { fileStore } from "../../src/io/file.ts";
import { bytesIn } from "../support/content.ts";
import { errorOf } from "../support/errors.ts";
import { bytesList, type GgufFile, ggufBytes, strings } from "../support/gguf.ts";
import { ggufGolden, workFolder } from "../support/goldens.ts";
import { hostileGguf } from "../support/hostile.ts";
import { countedStore, memoryStore } from "../support/memory-store.ts";

const work = workFolder();
const hostile = (file: string) => new URL(`../../fixtures/hostile/gguf/${file}`, import.meta.url).pathname;

interface Expected {
  /** name, number of its type and, for a list, of the type of its elements */
  readonly keys: readonly (readonly [string, number, number?])[];
  readonly data_offset: number | null;
  readonly tensors: Readonly<
    Record<string, { type: string; dims: number[]; offset?: number; sha256: string }>
  >;
}

const expected: Record<string, Expected> = JSON.parse(readFileSync(ggufGolden("expected.json"), "utf8"));
const TYPES = "u8 i8 u16 i16 u32 i32 f32 bool string array u64 i64 f64".split(" ");

const read = async (path: string): Promise<Checkpoint> => gguf.read(await fileStore(path));

describe.each(Object.entries(expected))("%s", (name, { keys, data_offset: dataOffset, tensors }) => {
  it("has its keys, with their types, in order", async () => {
    const { metadata, tensors: found } = await read(ggufGolden(name));
    const types = keys.map(([key, type, element]) =>
      element === undefined ? [key, TYPES[type]] : [key, `${TYPES[element]}[]`],
    );
    expect(metadata!.map(({ key, type }) => [key, type])).toEqual(types);
    if (dataOffset !== null) expect(found[0]!.pieces[0]!.offset).toBe(dataOffset);
  });

  it("has its tensors, each with type, dimensions, place and bytes", async () => {
    const { tensors: found, store } = await read(ggufGolden(name));
    const told = await Promise.all(
      found.map(async (tensor) => {
        const { name, dtype, shape, pieces } = tensor;
        const offset = dataOffset === null ? {} : { offset: pieces[0]!.offset - dataOffset };
        const row = { type: dtype, dims: shape.toReversed(), ...offset };
        return [name, { ...row, sha256: sha256(await bytesIn(store, tensor)) }];
      }),
    );
    expect(told).toEqual(Object.entries(tensors));
  });
});

describe("hostile and odd files", () => {
  it.each(hostileGguf)("$file: $expect, $rule", async ({ file, expect: outcome, code, names }) => {
    const started = performance.now();
    if (outcome === "ok") {
      const { tensors } = await inspect(hostile(file), { tensors: true });
      expect(tensors).toHaveLength(20);
    } else {
      const error = await errorOf(() => read(hostile(file)));
      expect([error.code, error.exit]).toEqual([code, 3]);
      expect(`${error.at.tensor ?? ""} ${error.message}`).toContain(names);
      expect(error.at.file).toBe(file);
    }
    expect(performance.now() - started).toBeLessThan(2000);
  });

  it("keeps every value of unknown keys", async () => {
    const { gguf: facts } = await inspect(hostile("ok-unknown-keys.gguf"));
    const ours = facts!.metadata.filter(({ key }) => key.startsWith("isologit."));
    expect(ours.map(({ key, type, count, value }) => [key, type, count, typeof value])).toMatchSnapshot();
  });
});

/** What reading these bytes as one file gives. */
const readBytes = (file: GgufFile, name = "m.gguf") =>
  gguf.read(memoryStore("m", new Map([[name, ggufBytes(file)]])));

const TENSOR = { name: "a.weight", dims: [32, 2], type: 8, bytes: 68 } as const;

describe("rules of the reader", () => {
  it.each<[string, GgufFile, string]>([
    ["a key without a name", { keys: [["", "u8", 1]] }, "NAME_INVALID"],
    ["a control character in a key", { keys: [["a\nb", "u8", 1]] }, "NAME_INVALID"],
    ["a tensor without a name", { tensors: [{ ...TENSOR, name: "" }] }, "NAME_INVALID"],
    ["a name of 64 bytes", { tensors: [{ ...TENSOR, name: "n".repeat(64) }] }, "NAME_INVALID"],
    ["no dimensions", { tensors: [{ ...TENSOR, dims: [] }] }, "LIMIT_EXCEEDED"],
    ["a dimension of 0", { tensors: [{ ...TENSOR, dims: [32, 0] }] }, "SIZE_UNSAFE"],
    ["a type for activations only", { tensors: [{ ...TENSOR, type: 15 }] }, "DTYPE_UNKNOWN"],
    ["bytes between header and data", { tensors: [TENSOR], padding: 1 }, "PADDING_INVALID"],
    ["an alignment of another type", { keys: [["general.alignment", "u16", 32]] }, "HEADER_INVALID"],
    ["an alignment that is no power of two", { keys: [["general.alignment", "u32", 48]] }, "HEADER_INVALID"],
    ["an alignment of 4", { keys: [["general.alignment", "u32", 4]] }, "HEADER_INVALID"],
    ["a huge alignment", { keys: [["general.alignment", "u32", 2 ** 31]] }, "HEADER_INVALID"],
    [
      "another alignment than it uses",
      { keys: [["general.alignment", "u32", 64]], tensors: [TENSOR, { ...TENSOR, name: "b" }] },
      "SPAN_INVALID",
    ],
    [
      "a long list with a truth value of 3",
      { keys: [["a", "raw", bytesList("bool", 40_000, 3)]] },
      "HEADER_INVALID",
    ],
    [
      "long names of many keys",
      { keys: Array.from({ length: 70 }, (_, i) => [`${i}`.padEnd(65_000, "k"), "u8", 1] as const) },
      "LIMIT_EXCEEDED",
    ],
    ["513 layers", { keys: [["x.block_count", "u32", 513]] }, "LIMIT_EXCEEDED"],
    ["a negative number of layers", { keys: [["x.block_count", "i32", -1]] }, "LIMIT_EXCEEDED"],
  ])("%s is refused", async (_, file, code) => {
    expect((await errorOf(() => readBytes(file))).code).toBe(code);
  });

  it("takes any key for a key, and any text for a text", async () => {
    const { metadata } = await readBytes({
      keys: [
        ["__proto__", "string", "\ufeff\u0000x"],
        ["constructor", "i64", -(2n ** 62n)],
        ["half", "f32", Number.NaN],
        ["yes", "bool", true],
        ["minus", "i32", -2],
        ["most", "u64", 2n ** 64n - 1n],
      ],
      tensors: [TENSOR],
    });
    expect(metadata!.map(({ key, value }) => [key, value])).toEqual([
      ["__proto__", "\ufeff\u0000x"],
      ["constructor", -(2n ** 62n)],
      ["half", Number.NaN],
      ["yes", true],
      ["minus", -2],
      ["most", 2n ** 64n - 1n],
    ]);
  });

  it("warns of bytes that no reader looks at", async () => {
    expect((await readBytes({ tensors: [TENSOR] })).remarks).toBeUndefined();
    const { remarks } = await readBytes({ tensors: [TENSOR], trailing: 5 });
    expect(remarks).toMatchObject([{ rule: "trailing-bytes", severity: "warning" }]);
  });

  it("takes a last tensor without its padding, and not one byte less", async () => {
    const whole = ggufBytes({ tensors: [TENSOR] });
    const end = whole.byteLength - (96 - 68);
    const cut = (size: number) => gguf.read(memoryStore("m", new Map([["m.gguf", whole.slice(0, size)]])));
    expect((await cut(end)).tensors).toHaveLength(1);
    const error = await errorOf(() => cut(end - 1));
    expect([error.code, error.at.tensor]).toEqual(["TRUNCATED", "a.weight"]);
  });

  it("refuses a header that is cut anywhere", async () => {
    const whole = new Uint8Array(readFileSync(hostile("ok-unknown-keys.gguf")));
    for (let size = 0; size < 6000; size += 37) {
      const store = memoryStore("m", new Map([["m.gguf", whole.slice(0, size)]]));
      expect((await errorOf(() => gguf.read(store))).code, String(size)).toBe("TRUNCATED");
    }
  });
});

describe("a large vocabulary", () => {
  // Of 16 bytes with its length, and so placed that the first window ends inside a length.
  const tokens = Array.from({ length: 480_000 }, (_, i) => String(i).padStart(8, "t"));
  const file = {
    keys: [["tokenizer.ggml.tokens.of_test", "raw", strings(tokens)] as const],
    tensors: [TENSOR],
  };

  it("takes two reads, and its tokens are counted, not kept", async () => {
    const bytes = ggufBytes(file);
    expect(bytes.byteLength).toBeGreaterThan(7e6);
    const { store, counts } = countedStore(memoryStore("m", new Map([["m.gguf", bytes]])));
    const { metadata, tensors } = await gguf.read(store);
    expect(metadata).toMatchObject([{ type: "string[]", count: tokens.length }]);
    expect(metadata![0]!.value).toBeUndefined();
    expect(tensors).toHaveLength(1);
    expect(counts.get("m.gguf")).toMatchObject({ reads: 2, bytes: bytes.byteLength });
  });

  it("is passed over where one of its tokens is long", async () => {
    const keys = [["a", "raw", strings(["x", "y".repeat(20_000_000)])] as const];
    const bytes = ggufBytes({ keys, tensors: [TENSOR] });
    const { store, counts } = countedStore(memoryStore("m", new Map([["m.gguf", bytes]])));
    expect((await gguf.read(store)).metadata).toMatchObject([{ type: "string[]", count: 2 }]);
    expect(counts.get("m.gguf")!.bytes).toBeLessThan(100_000);
  });

  it("is passed over where its elements have one size", async () => {
    const keys = [["a", "raw", bytesList("u8", 30_000_000, 255)] as const];
    const { store, counts } = countedStore(
      memoryStore("m", new Map([["m.gguf", ggufBytes({ keys, tensors: [TENSOR] })]])),
    );
    expect((await gguf.read(store)).metadata).toMatchObject([{ type: "u8[]", count: 30_000_000 }]);
    expect(counts.get("m.gguf")!.bytes).toBeLessThan(100_000);
  });
});

/** The split golden in a folder of its own, changed. */
function splitFolder(name: string, change: (folder: string) => void): string {
  const folder = join(work, name);
  cpSync(ggufGolden("tiny-split"), folder, { recursive: true });
  change(folder);
  return folder;
}
const PART = (i: number) => `tiny-split-0000${i}-of-00003.gguf`;

describe("a model in parts", () => {
  it.each([1, 2])(
    "is the same, given as a folder or as part %i, whatever else is beside it",
    async (part) => {
      const folder = splitFolder(`beside-${part}`, (beside) => {
        cpSync(ggufGolden("tiny-q8_0.gguf"), join(beside, "other.gguf"));
        cpSync(join(beside, PART(1)), join(beside, "tiny-split-00001-of-00002.gguf"));
      });
      const { parameters, gguf: facts } = await inspect(join(folder, PART(part)));
      expect([parameters, facts!.parts.length]).toEqual([248_800, 3]);
      const report = await errorOf(() => inspect(join(folder, "tiny-split-00001-of-00002.gguf")));
      expect(report).toMatchObject({ code: "TENSOR_MISSING" });
    },
  );

  it("names its files, also without tensors in the first", async () => {
    const { gguf: facts } = await inspect(ggufGolden("tiny-split"));
    expect(facts!.parts.map(({ file, tensors }) => [file, tensors])).toEqual([
      [PART(1), 24],
      [PART(2), 24],
      [PART(3), 10],
    ]);
    const split = (no: number) =>
      [
        ["split.no", "u16", no],
        ["split.count", "u16", 2],
        ["split.tensors.count", "i32", 1],
      ] as const;
    const files = new Map([
      ["m-00001-of-00002.gguf", ggufBytes({ keys: split(0) })],
      ["m-00002-of-00002.gguf", ggufBytes({ keys: split(1), tensors: [TENSOR] })],
    ]);
    const checkpoint = await gguf.read(memoryStore("m", files));
    expect([checkpoint.tensors.length, ggufFacts(checkpoint).parts.length]).toEqual([1, 2]);
  });

  it.each<[string, string, RegExp, (folder: string) => void]>([
    [
      "a missing part",
      "TENSOR_MISSING",
      /1 of them are not here, such as .*-00002-of-00003/,
      (folder) => rmSync(join(folder, PART(2))),
    ],
    [
      "two parts in each other's place",
      "INDEX_MISMATCH",
      /part 2 of 3; its keys say split.no 2/,
      (folder) => cpSync(join(folder, PART(3)), join(folder, PART(2))),
    ],
    [
      "another model beside it",
      "FORMAT_AMBIGUOUS",
      /2 models in GGUF/,
      (folder) => cpSync(ggufGolden("tiny-q8_0.gguf"), join(folder, "z.gguf")),
    ],
    [
      "a count that the parts do not have",
      "INDEX_MISMATCH",
      /split.tensors.count is 59; the parts have 58/,
      (folder) => patch(join(folder, PART(1)), "split.tensors.count", 59),
    ],
  ])("%s is refused", async (name, code, says, change) => {
    const folder = splitFolder(name, change);
    const error = await errorOf(() => inspect(folder));
    expect([error.code, error.exit]).toEqual([code, 3]);
    expect(error.message).toMatch(says);
  });

  it("is not read from one part alone, under any name", async () => {
    for (const name of [PART(1), "renamed.gguf"]) {
      const path = join(work, name);
      cpSync(join(ggufGolden("tiny-split"), PART(1)), path);
      const error = await errorOf(() => inspect(path));
      expect([error.code, error.exit]).toEqual(["TENSOR_MISSING", 3]);
      expect(error.next).toMatch(/all parts into one folder/);
    }
  });
});

/** Changes the four bytes of a number. */
function patch(path: string, key: string, value: number): void {
  const bytes = readFileSync(path);
  bytes.writeUInt32LE(value, bytes.indexOf(key) + key.length + 4);
  writeFileSync(path, bytes);
}

describe("what commands say of a GGUF", () => {
  it("inspect", async () => {
    const report = await inspect(ggufGolden("k-q2_k.gguf"));
    const { gguf: facts, ...rest } = report;
    const { metadata, ...told } = facts!;
    expect({ ...rest, gguf: told }).toMatchSnapshot();
    expect(metadata.find(({ key }) => key === "nemotron_h.attention.head_count_kv")).toMatchSnapshot();
    expect(metadata).toHaveLength(expected["k-q2_k.gguf"]!.keys.length);
  });

  it("check finds nothing wrong, with its bytes read too, and damage in a header", async () => {
    const { ok, findings } = await check(ggufGolden("tiny-split"), { read: true });
    expect([ok, findings.map(({ rule }) => rule)]).toEqual([true, []]);
    const bad = await check(hostile("offset-overlap.gguf"));
    expect([bad.ok, bad.findings.map(({ rule }) => rule)]).toEqual([false, ["span-invalid"]]);
  });

  it("diff compares tensors by their names, and keys by type and value", async () => {
    const same = join(work, "same");
    cpSync(ggufGolden("tiny-split"), same, { recursive: true });
    const split = await diff(ggufGolden("tiny-split"), same);
    expect([split.equal, split.tensors.length, split.config]).toEqual([true, 58, []]);

    const bytes = readFileSync(join(same, PART(2)));
    bytes[bytes.byteLength - 20]! ^= 1;
    writeFileSync(join(same, PART(2)), bytes);
    const changed = await diff(ggufGolden("tiny-split"), same, { weights: true });
    const unlike = changed.tensors.filter(({ equal }) => !equal);
    expect(unlike.map(({ ulp }) => ulp)).toEqual([1]);

    const { equal, tensors, config } = await diff(
      ggufGolden("tiny-q8_0.gguf"),
      ggufGolden("tiny-q4_k_m.gguf"),
    );
    expect(equal).toBe(false);
    expect(config).toEqual([{ key: "general.file_type", a: "u32 7", b: "u32 15" }]);
    expect(tensors.filter((tensor) => tensor.equal).map(({ a }) => a)).toHaveLength(37);
    const unequal = tensors.filter((tensor) => !tensor.equal);
    for (const { relL2, ulp, error } of unequal) {
      expect([ulp, error]).toEqual([null, undefined]);
      expect(relL2).toBeGreaterThan(0.03); // Q5_0 has a relative error of 0.043 on normal weights
      expect(relL2).toBeLessThan(0.06);
    }
  });

  it("diff compares long values and blocks by their bytes", async () => {
    const made = (name: string, last: string, byte: number) => {
      const tokens = Array.from({ length: 5000 }, (_, i) => `token ${i}`);
      const bytes = ggufBytes({ keys: [["t", "raw", strings([...tokens, last])]], tensors: [TENSOR] });
      bytes[bytes.byteLength - 40] = byte;
      writeFileSync(join(work, name), bytes);
      return join(work, name);
    };
    const whole = made("a.gguf", "x", 0);
    expect((await diff(whole, made("b.gguf", "x", 0))).equal).toBe(true);
    const keys = await diff(whole, made("b.gguf", "y", 0));
    expect([keys.tensors[0]!.equal, keys.config.map(({ key }) => key)]).toEqual([true, ["t"]]);
    const blocks = await diff(whole, made("b.gguf", "x", 1));
    expect([blocks.tensors[0]!.equal, blocks.config]).toEqual([false, []]);
  });
});
