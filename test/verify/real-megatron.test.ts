/**
 * Checkpoints that NeMo and Megatron wrote, against their Hugging Face twin: the same model, whichever is asked about
 * first. Then the same files with bytes moved inside them, as a wrong converter would have: different, at their layer.
 */
import { basename } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { bridge } from "../../formats/bridge.ts";
import { tarStore } from "../../formats/codec/tar.ts";
import type { Format } from "../../formats/define.ts";
import { megatron } from "../../formats/megatron.ts";
import { nemo1 } from "../../formats/nemo1.ts";
import { nemo2 } from "../../formats/nemo2.ts";
import type { VerifyOptions } from "../../src/api.ts";
import { type Checkpoint, tensorKey } from "../../src/core/checkpoint.ts";
import { countOf } from "../../src/core/dtype.ts";
import { readSmall } from "../../src/core/io.ts";
import { extentsOf } from "../../src/core/read.ts";
import { fileStore } from "../../src/io/file.ts";
import { memoryStore } from "../../src/io/memory.ts";
import { verify, verifyCheckpoints } from "../../src/verify/verify.ts";
import { bytesIn } from "../formats/content.ts";
import { golden } from "../goldens.ts";
import { copyOf, Editor, opened } from "./planted.ts";

const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const TINY = golden("nemo2-tiny/hf");
const MOE = golden("megatron-bridge-moe/hf");
/** what the twins' config says; where only padded rows are stored, somebody has to */
const VOCAB = 500;
const MAX_FILE_BYTES = 4 * 1024 * 1024;
const score = { planted: 0, named: 0 };
afterAll(() => console.log(`real files of Megatron: ${score.named}/${score.planted} faults named`));

describe("is its twin, both ways", () => {
  it.each([
    ["nemo2-tiny", TINY, {}],
    ["nemo2-tp2", TINY, {}],
    ["nemo1-tiny.nemo", TINY, {}],
    ["nemo1-zarr-tp2.nemo", TINY, { vocabSize: VOCAB }],
    ["megatron-tp2", TINY, { vocabSize: VOCAB }],
    ["megatron-bridge-moe", MOE, {}],
  ])("%s", async (name, twin, told) => {
    for (const [a, b] of [
      [golden(name), twin],
      [twin, golden(name)],
    ] as const) {
      const report = await verify(a, b, { ...QUICK, ...told });
      expect(report).toMatchObject({ verdict: "same", firstDivergence: null });
      expect(report.rungs.map(({ rung, verdict }) => `${rung} ${verdict}`)).toEqual([
        "cover same",
        "bytes same",
        "logits same",
      ]);
      expect(report.roots.a).toBe(report.roots.b);
    }
  });
});

/** The golden's own files in memory, after `plant` moved bytes of tensors within them. */
async function planted(format: Format, name: string, plant: (e: Editor) => void): Promise<Checkpoint> {
  const files = await filesIn(golden(name));
  const checkpoint = await format.read(memoryStore("memory", files));
  const tensors = new Map(
    await Promise.all(
      checkpoint.tensors.map(async (tensor) => {
        const { dtype, shape } = tensor;
        return [tensorKey(tensor), { dtype, shape, bytes: await bytesIn(checkpoint.store, tensor) }] as const;
      }),
    ),
  );
  const editor = new Editor({ tensors, files });
  plant(editor);
  for (const tensor of checkpoint.tensors) {
    const { bytes } = editor.get(tensorKey(tensor));
    if (bytes === tensors.get(tensorKey(tensor))!.bytes) continue;
    for (const { file, offset, to, size } of extentsOf(tensor, 0, countOf(tensor.shape)))
      files.get(file)!.set(bytes.subarray(to, to + size), offset);
  }
  return { ...checkpoint, told: { vocab: VOCAB } };
}

/** Files of a folder, or members of an archive. */
async function filesIn(path: string): Promise<Map<string, Uint8Array>> {
  const outside = await fileStore(path);
  const store = path.endsWith(".nemo") ? await tarStore(outside, basename(path)) : outside;
  const files = new Map<string, Uint8Array>();
  for (const { path } of await store.list())
    if (!path.startsWith("hf/")) files.set(path, await readSmall(store, path, MAX_FILE_BYTES));
  return files;
}

interface Fault {
  readonly format: Format;
  readonly name: string;
  readonly layer: number;
  readonly plant: (e: Editor) => void;
}

const on = (format: Format, name: string, layer: number, plant: Fault["plant"]): Fault => ({
  ...{ format, name, layer, plant },
});

/** tiny: M-M*-M-*M; 8 query heads and 2 key-value heads of 16: groups of 64, 16, 16 rows. moe: MEM*-ME*. */
const QKV = (layer: number) => `decoder.layers.${layer}.self_attention.linear_qkv.weight`;
const IN = (layer: number) => `decoder.layers.${layer}.mixer.in_proj.weight`;

/** Rows of q, k and v one after the other, put where rows by group belong. */
function ungrouped(row: number): number {
  const [group, at] = [Math.floor(row / 96), row % 96];
  return at < 64 ? group * 64 + at : at < 80 ? 128 + group * 16 + at - 64 : 160 + group * 16 + at - 80;
}

const FAULTS: Readonly<Record<string, Fault>> = {
  "q, k and v not by group": on(nemo2, "nemo2-tp2", 3, (e) => e.rows(QKV(3), ungrouped)),
  "q, k and v not by group, with experts": on(bridge, "megatron-bridge-moe", 7, (e) =>
    e.rows(QKV(7), ungrouped),
  ),
  "two groups swapped": on(nemo2, "nemo2-tiny", 7, (e) => e.swapRows(QKV(7), 0, 96, 96)),
  "two groups swapped across ranks": on(megatron, "megatron-tp2", 7, (e) =>
    e.swap(`${QKV(7)}@0.0.0`, `${QKV(7)}@1.0.0`),
  ),
  "z and x swapped": on(nemo2, "nemo2-tp2", 2, (e) => e.swap(`${IN(2)}.z`, `${IN(2)}.x`)),
  "z and x swapped, in zarr": on(nemo1, "nemo1-zarr-tp2.nemo", 8, (e) => e.swap(`${IN(8)}.z`, `${IN(8)}.x`)),
  "z and x of a slab swapped": on(nemo1, "nemo1-tiny.nemo", 5, (e) =>
    e.swapRows(`${IN(5)}@0.0.0`, 0, 128, 128),
  ),
  "B and C swapped": on(nemo2, "nemo2-tiny", 0, (e) => e.swap(`${IN(0)}.B`, `${IN(0)}.C`)),
  "B and C of a rank's slab swapped": on(megatron, "megatron-tp2", 5, (e) =>
    e.swapRows(`${IN(5)}@1.0.0`, 128, 144, 16),
  ),
  "a rank's part doubled": on(megatron, "megatron-tp2", 2, (e) =>
    e.values("decoder.layers.2.mixer.out_proj.weight@1.0.0", (v) => 2 * v),
  ),
  "the token table shifted by a row": on(nemo2, "nemo2-tp2", -1, (e) =>
    e.rows("embedding.word_embeddings.weight", (r, n) => (r + 1) % n),
  ),
  "the head shifted by a row": on(nemo1, "nemo1-zarr-tp2.nemo", 9, (e) =>
    e.rows("output_layer.weight", (r, n) => (r + 1) % n),
  ),
  "experts permuted": on(bridge, "megatron-bridge-moe", 1, (e) =>
    e.rows("decoder.layers.1.mlp.experts.experts.linear_fc1.weight", (r) => [1, 2, 3, 0][r]!),
  ),
};

describe("a wrong layout inside real files is different, at its layer", () => {
  it.each(Object.entries(FAULTS))("%s", async (_, { format, name, layer, plant }) => {
    score.planted++;
    const twin = await opened(await copyOf(name.includes("moe") ? MOE : TINY));
    const wrong = await planted(format, name, plant);
    for (const pair of [
      [twin, wrong],
      [wrong, twin],
    ] as const) {
      const report = await verifyCheckpoints(...pair, QUICK);
      expect(report).toMatchObject({ verdict: "different", firstDivergence: { layer } });
      const logits = report.rungs.find(({ rung }) => rung === "logits");
      expect(logits?.verdict).toBe("different"); // by running it, not by its bytes alone
    }
    score.named++;
  });

  it("and nothing planted is the same", async () => {
    const untouched = await planted(megatron, "megatron-tp2", () => {});
    const report = await verifyCheckpoints(await opened(await copyOf(TINY)), untouched, QUICK);
    expect(report.verdict).toBe("same");
  });
});
