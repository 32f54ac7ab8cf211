import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readDist } from "../../formats/codec/torch-dist.ts";
import type { Tensor } from "../../src/core/checkpoint.ts";
import { bytesOf, countOf } from "../../src/core/dtype.ts";
import { readRange, type Store } from "../../src/core/io.ts";
import { extentsOf } from "../../src/core/read.ts";
import { sha256 } from "../../src/core/root.ts";
import { fileStore } from "../../src/io/file.ts";
import { countedStore } from "../../src/io/memory.ts";
import { golden } from "../goldens.ts";

/** What the real torch.distributed.checkpoint reads from each, by key. */
type Dump = Readonly<
  Record<string, { shape: readonly number[]; dtype: string; sha256: string } | { bytes: number }>
>;

const DTYPES: Readonly<Record<string, string>> = { BF16: "bfloat16", F32: "float32" };

async function digestOf(store: Store, tensor: Tensor): Promise<string> {
  const bytes = new Uint8Array(bytesOf(tensor.dtype, tensor.shape));
  for (const { file, offset, to, size } of extentsOf(tensor, 0, countOf(tensor.shape))) {
    await using source = await store.open(file);
    bytes.set(await readRange(source, offset, size), to);
  }
  return sha256(bytes);
}

describe.each([
  ["nemo2-tiny", "weights/", "module."],
  ["nemo2-tp2", "weights/", "module."],
  ["megatron-bridge-moe", "iter_0000100/", ""],
])("%s", (name, folder, prefix) => {
  const dump: Dump = JSON.parse(readFileSync(golden(`${name}/dcp.json`), "utf8"));

  it("is read as torch reads it: every key, shape, type and byte", async () => {
    const store = await fileStore(golden(name));
    const { tensors, objects } = await readDist(store, folder);
    const read: Record<string, object> = {};
    for (const tensor of tensors) {
      const { dtype, shape } = tensor;
      const digest = await digestOf(store, tensor);
      read[prefix + tensor.name] = { shape, dtype: DTYPES[dtype], sha256: digest };
    }
    const wanted = Object.entries(dump);
    expect(read).toEqual(Object.fromEntries(wanted.filter(([, about]) => "sha256" in about)));
    const pickled = wanted.filter(([, about]) => "bytes" in about).map(([key]) => key);
    expect(objects.map((key) => (pickled.includes(key) ? key : prefix + key))).toEqual(pickled.sort());
  });

  it("is opened by two reads an entry, of the ends alone", async () => {
    const { store, counts } = countedStore(await fileStore(golden(name)));
    const { tensors, files } = await readDist(store, folder);
    const entries = tensors.reduce((sum, { pieces }) => sum + pieces.length, 0);
    const reads = files.reduce((sum, file) => sum + (counts.get(file)?.reads ?? 0), 0);
    expect(reads).toBeLessThanOrEqual(2 * entries);
    for (const { opened, closed } of counts.values()) expect(closed).toBe(opened);
  });
});
