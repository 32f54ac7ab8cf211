/** What the writers of NeMo's and Megatron's formats place is what their readers read. */
import { crc32 } from "node:zlib";
import { describe, expect, it } from "vitest";
import { bridge } from "../../formats/bridge/format.ts";
import { readDirectory } from "../../formats/codec/torch-zip/directory.ts";
import { archiveOf } from "../../formats/codec/torch-zip/write.ts";
import type { Format, WriteRequest } from "../../formats/format.ts";
import { megatron } from "../../formats/megatron/format.ts";
import { nemo2 } from "../../formats/nemo2/format.ts";
import { type Checkpoint, tensorKey } from "../../src/core/checkpoint.ts";
import { sha256 } from "../../src/core/hash.ts";
import { fileStore } from "../../src/io/file.ts";
import { carriedOut } from "../support/carry.ts";
import { bytesIn, digestsOf, watchedStore } from "../support/content.ts";
import { codeOf } from "../support/errors.ts";
import { golden } from "../support/goldens.ts";
import { memorySource, memoryStore } from "../support/memory-store.ts";

/** The golden folder that a format reads, to be written again. */
const MODELS: readonly (readonly [Format, string])[] = [
  [nemo2, "nemo2-tp2"],
  [bridge, "megatron-bridge-moe"],
  [megatron, "megatron-tp2"],
];

function manifestOf(model: Checkpoint, change: Partial<WriteRequest> = {}): WriteRequest {
  const { config, dialect, tensors, objects, sidecars } = model;
  const kept = objects.filter((name) => name.includes("_extra_state"));
  return { config, dialect, tensors, objects: kept, sidecars, weightFiles: [], options: {}, ...change };
}

async function rewritten(format: Format, model: Checkpoint, change: Partial<WriteRequest> = {}) {
  const byKey = new Map(model.tensors.map((tensor) => [tensorKey(tensor), tensor]));
  const wanted = manifestOf(model, change);
  return carriedOut(format.writes!, wanted, (key) => bytesIn(model.store, byKey.get(key)!), model.store);
}

describe.each(MODELS)("$id", (format, name) => {
  it("gives back what it was given: tensors, config, tokenizer, entries", async () => {
    const model = await format.read(await fileStore(golden(name)));
    const files = await rewritten(format, model);
    const { store, payloadBytes } = watchedStore(memoryStore(name, files));
    expect(await format.detect(store)).toBe("yes");
    const back = await format.read(store);
    expect(payloadBytes(back.tensors)).toBeLessThanOrEqual(8192);
    expect(await digestsOf(back)).toEqual(await digestsOf(model));
    expect(back.config).toEqual(model.config);
    expect(back.sidecars.map(({ path }) => path)).toEqual(model.sidecars.map(({ path }) => path));
    if (format !== megatron) {
      expect(back.objects).toEqual(model.objects.filter((object) => object.includes("_extra_state")));
    }
  });

  it("is the same to the byte each time", async () => {
    const model = await format.read(await fileStore(golden(name)));
    const digests = async () =>
      [...(await rewritten(format, model))].map(([path, bytes]) => [path, sha256(bytes)]);
    expect(await digests()).toEqual(await digests());
  });

  it("keeps what it has no place for beside it, under its path", async () => {
    const model = await format.read(await fileStore(golden(name)));
    const bytes = Buffer.from("{}");
    const sidecars = [{ path: "isologit.origin/config.json", bytes }];
    const files = await rewritten(format, model, { sidecars });
    expect(files.get("isologit.origin/config.json")).toEqual(new Uint8Array(bytes));
  });
});

it("data is cut into several files where it is large", async () => {
  const model = await nemo2.read(await fileStore(golden("nemo2-tiny")));
  const files = await rewritten(nemo2, model, { options: { maxShardBytes: 200_000 } });
  const data = [...files].filter(([path]) => path.endsWith(".distcp"));
  expect(data.map(([path]) => path)).toEqual([0, 1, 2, 3].map((i) => `weights/__0_${i}.distcp`));
  for (const [, bytes] of data) expect(bytes.byteLength).toBeLessThanOrEqual(200_000);
  expect(await digestsOf(await nemo2.read(memoryStore("cut", files)))).toEqual(await digestsOf(model));
});

it("no two tensors of one name are placed", async () => {
  const model = await nemo2.read(await fileStore(golden("nemo2-tiny")));
  const [first] = model.tensors;
  const wanted = manifestOf(model, { tensors: [first!, first!] });
  expect(await codeOf(() => nemo2.writes!.place(wanted))).toBe("DUPLICATE_NAME");
});

describe("an archive to be written", () => {
  const GIB = 1024 ** 3;

  it("has payloads at multiples of 64 bytes, and directories that readers agree with", async () => {
    const sizes = [0, 1, 63, 64, 65, 1000];
    const storages = sizes.map((size) => Buffer.alloc(size, 7));
    const contents = { root: "archive", pickle: Buffer.from("pickle"), storages: sizes };
    const {
      size,
      storages: starts,
      gaps,
    } = archiveOf(
      contents,
      storages.map((bytes) => crc32(bytes)),
    );
    const bytes = new Uint8Array(size);
    for (const gap of gaps) bytes.set(gap.bytes, gap.offset);
    storages.forEach((storage, i) => {
      expect(starts[i]! % 64).toBe(0);
      bytes.set(storage, starts[i]);
    });
    const entries = await readDirectory(memorySource("a.pt", bytes), "a.pt");
    expect(entries.map(({ name, size }) => [name, size])).toEqual([
      ["archive/data.pkl", 6],
      ["archive/byteorder", 6],
      ...sizes.map((size, i) => [`archive/data/${i}`, size]),
      ["archive/version", 2],
    ]);
  });

  it.each([
    ["2 GiB", [2 * GIB]],
    ["4 GiB less one", [4 * GIB - 1]],
    ["4 GiB", [4 * GIB]],
    ["several to beyond 4 GiB", [3 * GIB, 3 * GIB, 5 * GIB]],
  ])("of %s says so in as many bits as it takes", async (_, sizes) => {
    const { size, gaps, storages } = archiveOf({
      root: "archive",
      pickle: Buffer.from("p"),
      storages: sizes,
    });
    const sparse = {
      url: "sparse",
      size,
      async readInto(target: Uint8Array, offset: number) {
        target.fill(0);
        for (const gap of gaps) {
          const from = Math.max(gap.offset, offset);
          const to = Math.min(gap.offset + gap.bytes.byteLength, offset + target.byteLength);
          if (from < to) target.set(gap.bytes.subarray(from - gap.offset, to - gap.offset), from - offset);
        }
      },
      async [Symbol.asyncDispose]() {},
    };
    const entries = await readDirectory(sparse, "sparse");
    const data = entries.filter(({ name }) => name.includes("/data/"));
    expect(data.map(({ size }) => size)).toEqual(sizes);
    for (const [i, { offset, size }] of data.entries()) {
      expect(storages[i]!).toBeGreaterThan(offset);
      expect(storages[i]! + size).toBeLessThanOrEqual(entries[entries.indexOf(data[i]!) + 1]!.offset);
    }
  });
});
