import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { hex, type Sample, sample, storeOf, written } from "../../../fixtures/generate/packed-sample.ts";
import { CHUNK_BYTES, type WriteRequest } from "../../../formats/format.ts";
import { packed } from "../../../formats/packed/format.ts";
import { certificateSpan, packedDamage, packedDigests } from "../../../formats/packed/read.ts";
import { placePacked, sealPacked } from "../../../formats/packed/write.ts";
import type { DType } from "../../../src/core/dtype.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import type { ByteSource } from "../../../src/core/io.ts";

const file = written(sample);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const cut = (span: { offset: number; size: number }, bytes = file) =>
  bytes.subarray(span.offset, span.offset + span.size);
const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset);
/** Where the front ends, by the head itself. */
const FRONT = Number(view(file).getBigUint64(56, true));

async function codeOf(run: Promise<unknown>): Promise<string> {
  return run.then(
    () => "none",
    (error: unknown) => {
      if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
      return error.code;
    },
  );
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

describe("what was written is read", () => {
  it("tensors in order, with their elements", async () => {
    const checkpoint = await packed.read(storeOf(file));
    expect(checkpoint.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(
      sample.manifest.tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    );
    for (const { name, pieces } of checkpoint.tensors) {
      const elements = sample.elements.get(name)!;
      expect(pieces).toHaveLength(1);
      expect(pieces[0]!.offset % 256).toBe(0);
      expect(cut({ offset: pieces[0]!.offset, size: elements.byteLength })).toEqual(elements);
    }
  });

  it("config with Python's Infinity, side files sorted, shard headers verbatim", async () => {
    const { config, dialect, sidecars, weightFiles } = await packed.read(storeOf(file));
    expect(dialect).toBe("hf");
    expect(config).toEqual({ model_type: "nemotron_h", time_step_limit: [0, Infinity], note: "NaN" });
    expect(sidecars.map((s) => [s.path, text(cut(s.span))])).toEqual([
      ["code/model.py", "pass\n"],
      ["config.json", '{"model_type": "nemotron_h", "time_step_limit": [0.0, Infinity], "note": "NaN"}'],
      ["tokenizer.json", '{"vocab":{}}'],
    ]);
    expect(weightFiles.map((s) => [s.path, cut(s.header)])).toEqual(
      sample.manifest.weightFiles.map((s) => [s.path, s.header]),
    );
  });

  it("what a recast left behind", async () => {
    const { recasts } = await packed.read(storeOf(file));
    const { sha256: of8, ...factors } = sample.sources.get("in_proj")!;
    expect(recasts).toEqual([
      { tensor: "in_proj", kind: "fp8-e4m3", sourceDtype: "BF16", sourceDigest: of8, ...factors },
      { tensor: "norm", kind: "bf16", sourceDtype: "F32", sourceDigest: sample.sources.get("norm")!.sha256 },
    ]);
  });

  it("several scales, in a tensor of their own", async () => {
    const tensors = sample.manifest.tensors.map((tensor) =>
      tensor.name === "in_proj" ? { ...tensor, recast: { ...tensor.recast!, scales: "D" } } : tensor,
    );
    const bytes = written({ ...sample, manifest: { ...sample.manifest, tensors } });
    const { recasts } = await packed.read(storeOf(bytes));
    expect(recasts[0]).toEqual({
      ...{ tensor: "in_proj", kind: "fp8-e4m3", sourceDtype: "BF16", scales: "D" },
      sourceDigest: sample.sources.get("in_proj")!.sha256,
    });
  });

  it("digests, and no damage where there is none", async () => {
    const digests = await packedDigests(storeOf(file));
    for (const [name, elements] of sample.elements) {
      expect(digests.tensors.get(name)!.sha256).toBe(hex(elements));
    }
    expect(digests.entries.get("tokenizer.json")).toBe(hex(sample.files.get("tokenizer.json")!));
    expect(digests.shards.get("model.safetensors")).toBe(hex(sample.manifest.weightFiles[0]!.header));
    expect(await all(packedDamage(storeOf(file)))).toEqual([]);
  });

  it("nothing at all", async () => {
    const manifest: WriteRequest = { ...sample.manifest, tensors: [], sidecars: [], weightFiles: [] };
    const checkpoint = await packed.read(storeOf(written({ ...sample, manifest })));
    expect(checkpoint).toMatchObject({ config: {}, tensors: [], sidecars: [], weightFiles: [], recasts: [] });
  });

  it("names that JavaScript finds special, and text beyond ASCII", async () => {
    const names = ["__proto__", "constructor", "0", "层.權重", "𝛼", "file:x"];
    const tensors = names.map((name) => ({ name, dtype: "U8" as DType, shape: [1] }));
    const elements = new Map(names.map((name, i) => [name, Uint8Array.of(i)]));
    const bytes = written({ ...sample, manifest: { ...sample.manifest, tensors }, elements });
    const checkpoint = await packed.read(storeOf(bytes));
    expect(checkpoint.tensors.map((t) => t.name)).toEqual(names);
    checkpoint.tensors.forEach((t, i) => {
      expect(bytes[t.pieces[0]!.offset]).toBe(i);
    });
  });
});

describe("a real model", () => {
  const folder = new URL("../../../fixtures/nemotron-h/tiny/", import.meta.url);
  const weights = readFileSync(new URL("model.safetensors", folder));
  const headerEnd = 8 + Number(weights.readBigUInt64LE(0));
  const header: Record<string, { dtype: DType; shape: number[]; data_offsets: [number, number] }> =
    JSON.parse(text(weights.subarray(8, headerEnd)));
  const { __metadata__: _, ...entries } = header;
  const paths = ["config.json", "tokenizer.json", "chat_template.jinja"];
  const files = new Map(paths.map((path) => [path, new Uint8Array(readFileSync(new URL(path, folder)))]));
  const real = (alignment: number): Sample => ({
    manifest: {
      config: {},
      dialect: "hf",
      tensors: Object.entries(entries).map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
      objects: [],
      sidecars: [...files].map(([path, { byteLength: size }]) => ({
        path,
        span: { file: path, offset: 0, size },
      })),
      weightFiles: [{ path: "model.safetensors", header: weights.subarray(0, headerEnd) }],
      options: { alignment },
    },
    elements: new Map(
      Object.entries(entries).map(
        ([
          name,
          {
            data_offsets: [from, to],
          },
        ]) => [name, weights.subarray(headerEnd + from, headerEnd + to)],
      ),
    ),
    sources: new Map(),
    files,
  });

  it.each([256, 4096])("gives its shard back byte for byte, aligned to %d", async (alignment) => {
    const bytes = written(real(alignment));
    const { tensors, weightFiles, config } = await packed.read(storeOf(bytes));
    const out = new Uint8Array(weights.byteLength);
    out.set(cut(weightFiles[0]!.header, bytes));
    for (const { name, pieces } of tensors) {
      const [from, to] = entries[name]!.data_offsets;
      expect(pieces[0]!.offset % alignment).toBe(0);
      out.set(cut({ offset: pieces[0]!.offset, size: to - from }, bytes), headerEnd + from);
    }
    expect(Buffer.compare(out, weights)).toBe(0);
    expect(config).toMatchObject({ model_type: "nemotron_h" });
    expect(await all(packedDamage(storeOf(bytes)))).toEqual([]);
  });
});

describe("placement", () => {
  it("is pure, and the same for side files in any order", () => {
    const manifest = { ...sample.manifest, sidecars: sample.manifest.sidecars.toReversed() };
    expect(written({ ...sample, manifest })).toEqual(file);
    expect(placePacked(sample.manifest)).toEqual(placePacked(sample.manifest));
  });

  it("is pinned: same input, same bytes, in every version", () => {
    expect(hex(file)).toMatchInlineSnapshot(
      `"b204d90431ab9885972e0bf47ffa24d4d916fa12b88857c7a4233c8bd00af743"`,
    );
  });

  it("covers the file: parts do not overlap, and what none covers is less than the alignment", () => {
    const { files, inline, copies, seals, tensors } = placePacked(sample.manifest);
    const spans = [
      ...inline.map(({ offset, bytes }) => ({ offset, size: bytes.byteLength })),
      ...copies.map(({ offset, from }) => ({ offset, size: from.size })),
      ...seals,
      ...tensors.map(({ name, offset }) => ({ offset, size: sample.elements.get(name)!.byteLength })),
    ].sort((a, b) => a.offset - b.offset || a.size - b.size);
    let end = 0;
    for (const span of spans) {
      expect(span.offset).toBeGreaterThanOrEqual(end);
      expect(span.offset - end).toBeLessThan(256);
      end = span.offset + span.size;
    }
    expect(files).toEqual([{ path: "", size: end }]);
  });

  it("holds for tensors beyond 4 GiB, and for offsets whose spelling changes the index's length", async () => {
    for (const rows of [1, 200, 250, 255, 60_000, 2 ** 22, 2 ** 31]) {
      const tensors = [1, 2, 3, 4].map((i) => ({ name: `t${i}`, dtype: "BF16" as DType, shape: [rows, 2] }));
      const placement = placePacked({ ...sample.manifest, tensors });
      const read = await packed.read(frontOnly({ ...sample.manifest, tensors }));
      expect(read.tensors.map((t) => t.pieces[0]!.offset)).toEqual(placement.tensors.map((t) => t.offset));
    }
  });

  it.each([150, 200, 250, 300])(
    "holds where the index of %d tensors grows by the offsets it moves",
    async (count) => {
      const tensors = Array.from({ length: count }, (_, i) => ({
        name: `t${i}`,
        dtype: "U8" as DType,
        shape: [1],
      }));
      const elements = new Map(tensors.map(({ name }, i) => [name, Uint8Array.of(i)]));
      const bytes = written({ ...sample, manifest: { ...sample.manifest, tensors }, elements });
      const { tensors: read } = await packed.read(storeOf(bytes));
      expect(read.map((t) => bytes[t.pieces[0]!.offset])).toEqual(tensors.map((_, i) => i & 255));
    },
  );

  it.each([
    ["an alignment of 512", { options: { alignment: 512 } }, "USAGE"],
    [
      "a name twice",
      { tensors: [sample.manifest.tensors[0]!, sample.manifest.tensors[0]!] },
      "DUPLICATE_NAME",
    ],
    ["half a surrogate pair", { tensors: [{ name: "a\ud800", dtype: "F32", shape: [1] }] }, "NAME_INVALID"],
    [
      "half a pair in a long name, which encoders spell otherwise",
      { tensors: [{ name: `${"a".repeat(100)}\ud800`, dtype: "F32", shape: [1] }] },
      "NAME_INVALID",
    ],
    [
      "the name of a digest",
      { tensors: [{ name: "file:config.json", dtype: "F32", shape: [1] }] },
      "NAME_INVALID",
    ],
    ["a path upwards", { sidecars: [{ path: "../x", bytes: Uint8Array.of(1) }] }, "PATH_UNSAFE"],
    ["half a byte", { tensors: [{ name: "a", dtype: "F4", shape: [3] }] }, "SIZE_UNSAFE"],
    ["2^53 bytes", { tensors: [{ name: "a", dtype: "F32", shape: [2 ** 51] }] }, "SIZE_UNSAFE"],
    [
      "a config of 17 MiB",
      { sidecars: [{ path: "config.json", bytes: new Uint8Array(17 << 20) }] },
      "LIMIT_EXCEEDED",
    ],
  ] as const)("%s is refused", (_what, change, code) => {
    expect(() => placePacked({ ...sample.manifest, ...(change as Partial<WriteRequest>) })).toThrow(
      expect.objectContaining({ code }),
    );
  });

  it("a digest that is missing or cannot be is our own bug, never a file", () => {
    const { manifest } = sample;
    expect(() => sealPacked(manifest, new Map())).toThrow(expect.objectContaining({ code: "INTERNAL" }));
  });
});

/** A store of a file too large to hold: its front is there, the data is not read. */
function frontOnly(manifest: WriteRequest) {
  const { files, inline, copies, tensors, seals } = placePacked(manifest);
  const front = new Uint8Array(tensors[0]!.offset);
  for (const { offset, bytes } of inline) front.set(bytes, offset);
  const digest = hex(Uint8Array.of());
  const sealed = new Map(
    manifest.tensors.map(({ name, shape }) => {
      const chunks = Math.ceil((2 * shape.reduce((a, b) => a * b, 1)) / CHUNK_BYTES);
      return [name, { sha256: digest, crc32: new Array<number>(chunks).fill(0) }];
    }),
  );
  for (const { from } of copies) sealed.set(`file:${from.file}`, { sha256: digest, crc32: [] });
  front.set(sealPacked(manifest, sealed)[0]!, seals[0]!.offset);
  return storeOf(front, "large.isologit", () => {}, files[0]!.size);
}

describe("opening", () => {
  it("takes two reads, and none of them reaches the data", async () => {
    const reads: number[] = [];
    await packed.read(storeOf(file, "m.isologit", (bytes) => reads.push(bytes)));
    expect(reads).toEqual([128, FRONT - 128]);
  });

  it("is detected by its first bytes, and nothing else is", async () => {
    expect(await packed.detect(storeOf(file))).toBe("yes");
    for (const other of [new Uint8Array(0), file.subarray(0, 7), file.subarray(1), new Uint8Array(4096)]) {
      expect(await packed.detect(storeOf(other))).toBe("no");
    }
    const one = storeOf(file);
    const two = { ...one, list: async () => [...(await one.list()), { path: "z", size: 1 }] };
    expect(await packed.detect(two)).toBe("no");
    expect(await codeOf(packed.read(two))).toBe("FORMAT_UNKNOWN");
  });
});

describe("docs/packed-format.md", () => {
  const spec = readFileSync(new URL("../../../docs/packed-format.md", import.meta.url), "utf8");

  it("shows the head of the sample as it is", () => {
    const dump = [...spec.matchAll(/^0000\w+: ((?:[0-9a-f]{4} ?){8})/gm)].map((line) =>
      line[1]!.replaceAll(" ", ""),
    );
    expect(dump.join("")).toBe(Buffer.from(file.subarray(0, 144)).toString("hex"));
  });

  it("has a reader that runs", () => {
    const code = /```js\n(.*?)```/s.exec(spec)![1]!;
    const folder = mkdtempSync(join(tmpdir(), "packed-"));
    const path = join(folder, "sample.isologit");
    writeFileSync(path, file);
    const args = ["--input-type=module", "-e", code, "reader", path];
    const out = execFileSync(process.execPath, args, { encoding: "utf8" });
    rmSync(folder, { recursive: true });
    expect(out.split("\n")).toEqual([
      "embeddings BF16 [ 4, 3 ] 1280",
      "in_proj F8_E4M3 [ 2, 5 ] 1536",
      "none F32 [ 0, 7 ] 1792",
      "D F32 [ 2 ] 1792",
      "norm BF16 [] 2048",
      "intact",
      "",
    ]);
  });
});

describe("a certificate after the sealed part", () => {
  const certificate = new TextEncoder().encode('{"verdict":"same"}');
  const length = new Uint8Array(8);
  view(length).setBigUint64(0, BigInt(certificate.byteLength), true);
  const certified = Uint8Array.from([...file, ...certificate, ...length, ...Buffer.from("ISOCERT\n")]);

  it("is tolerated, and found", async () => {
    expect(await certificateSpan(storeOf(file))).toBeUndefined();
    const span = await certificateSpan(storeOf(certified));
    expect(cut(span!, certified)).toEqual(certificate);
    expect((await packed.read(storeOf(certified))).tensors).toHaveLength(5);
    expect(await all(packedDamage(storeOf(certified)))).toEqual([]);
  });

  it("is refused above 64 MiB", async () => {
    const huge = 64 * 1024 * 1024 + 1;
    const size = file.byteLength + huge + 16;
    const tail = Uint8Array.from([...new Uint8Array(8), ...Buffer.from("ISOCERT\n")]);
    view(tail).setBigUint64(0, BigInt(huge), true);
    const source: ByteSource = {
      url: "huge",
      size,
      async readInto(target, offset) {
        target.set(offset === size - 16 ? tail : file.subarray(offset, offset + target.byteLength));
      },
      async [Symbol.asyncDispose]() {},
    };
    const store = { ...storeOf(file), open: async () => source };
    expect(await codeOf(packed.read(store))).toBe("LIMIT_EXCEEDED");
  });

  it("anything else there is refused, at every length", async () => {
    for (let size = file.byteLength + 1; size < certified.byteLength; size++) {
      expect(await codeOf(packed.read(storeOf(certified.subarray(0, size))))).toBe("TRAILING_BYTES");
    }
  });
});
