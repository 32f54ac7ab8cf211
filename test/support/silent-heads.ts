/** The small trained model with Mamba heads that say nothing, and scores that know them. */
import { writeFileSync } from "node:fs";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import { prune } from "../../src/api/pruning/prune.ts";
import { minipuzzle } from "./measured-shapes.ts";
import { copyOf, Editor, written } from "./verify/planted.ts";

export const MAMBA = [..."M-M-M*-M-M*-M-M*-M-"].flatMap((kind, layer) => (kind === "M" ? [layer] : []));
const HEADS = 8;
/** Elements of a head. */
export const DIM = 16;
/** One head of each group of four. */
const SILENT = [1, 6];
export const mixerName = (layer: number, what: string) => `backbone.layers.${layer}.mixer.${what}`;

/** The parent with silent heads: their x rows and their biases of the convolution are zero. */
export async function withSilentHeads(folder: string): Promise<string> {
  const editor = new Editor(await copyOf(minipuzzle("parent")));
  for (const layer of MAMBA)
    for (const head of SILENT) {
      const [first, last] = [head * DIM, (head + 1) * DIM];
      const row = 2 * 64;
      const x = HEADS * DIM;
      editor.bytes(mixerName(layer, "in_proj.weight"), (bytes) =>
        bytes.fill(0, (x + first) * row, (x + last) * row),
      );
      editor.bytes(mixerName(layer, "conv1d.bias"), (bytes) => bytes.fill(0, 2 * first, 2 * last));
    }
  return written(editor.copy, folder);
}

/** Writes scores of the model that are 0 for the silent heads and 1 for the others. */
export async function scoresOfHeads(source: string, file: string): Promise<string> {
  const { source: measured } = await prune(source, undefined, { drop: [1], ids: [1], dryRun: true });
  const size = 4 * HEADS;
  const tensors = MAMBA.map((layer, i) => {
    const name = `mamba.contribution.${layer}`;
    return { name, dtype: "F32" as const, shape: [HEADS], begin: i * size, end: (i + 1) * size };
  });
  const values = MAMBA.flatMap(() => Array.from({ length: HEADS }, (_, k) => (SILENT.includes(k) ? 0 : 1)));
  const header = encodeHeader(tensors, { isologit: JSON.stringify({ root: measured.root }) });
  writeFileSync(file, Buffer.concat([header, Buffer.from(Float32Array.from(values).buffer)]));
  return file;
}
