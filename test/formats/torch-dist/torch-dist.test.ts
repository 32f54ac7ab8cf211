import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readDist } from "../../../formats/torch-dist/read.ts";
import { sha256 } from "../../../src/core/hash.ts";
import { fileStore } from "../../../src/io/file.ts";
import { bytesIn } from "../../support/content.ts";
import { golden } from "../../support/goldens.ts";
import { countedStore } from "../../support/memory-store.ts";

/** What the real torch.distributed.checkpoint reads from each, by key. */
type Dump = Readonly<
  Record<string, { shape: readonly number[]; dtype: string; sha256: string } | { bytes: number }>
>;

const DTYPES: Readonly<Record<string, string>> = { BF16: "bfloat16", F32: "float32" };

describe.each([
  ["nemo2-tiny", "weights/"],
  ["nemo2-tp2", "weights/"],
  ["megatron-bridge-moe", "iter_0000100/"],
])("%s", (name, folder) => {
  const dump: Dump = JSON.parse(readFileSync(golden(`${name}/dcp.json`), "utf8"));

  it("is read as torch reads it: every key, shape, type and byte", async () => {
    const store = await fileStore(golden(name));
    const { tensors, objects } = await readDist(store, folder);
    const read: Record<string, object> = {};
    for (const tensor of tensors) {
      const { dtype, shape } = tensor;
      const digest = sha256(await bytesIn(store, tensor));
      read[tensor.name] = { shape, dtype: DTYPES[dtype], sha256: digest };
    }
    const wanted = Object.entries(dump);
    expect(read).toEqual(Object.fromEntries(wanted.filter(([, about]) => "sha256" in about)));
    const pickled = wanted.filter(([, about]) => "bytes" in about).map(([key]) => key);
    expect(objects.toSorted()).toEqual(pickled.sort());
  });

  it("is opened by two reads an entry, of the ends alone", async () => {
    const { store, counts } = countedStore(await fileStore(golden(name)));
    const { tensors } = await readDist(store, folder);
    const entries = tensors.reduce((sum, { pieces }) => sum + pieces.length, 0);
    const data = [...counts].filter(([path]) => path.endsWith(".distcp"));
    const reads = data.reduce((sum, [, { reads }]) => sum + reads, 0);
    expect(reads).toBeLessThanOrEqual(2 * entries);
    for (const { opened, closed } of counts.values()) expect(closed).toBe(opened);
  });
});
