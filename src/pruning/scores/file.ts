/** The file of scores: safetensors, all tensors F64, with the root of the scored model in its metadata. */
import { bytesOfArray, writeTensorFile } from "../../checkpoint/tensor-file.ts";
import type { LayerScore } from "./layer-scores.ts";

/** The metadata key of the record. */
export const SCORES_KEY = "isologit";

/** What the scores belong to. */
interface ScoresRecord {
  /** content root of the scored checkpoint */
  readonly root: string;
  readonly prompts: {
    readonly count: number;
    /** of all prompts */
    readonly tokens: number;
    /** SHA-256 of the token ids, see `promptsDigest` */
    readonly sha256: string;
  };
}

const LAYER_TENSORS = {
  "layer.mse": "mse",
  "layer.kl": "kl",
  "layer.logits_nmse": "logitsNmse",
  "layer.cosine": "cosine",
  "layer.rank": "rank",
} as const satisfies Readonly<Record<string, keyof LayerScore>>;

/** Writes scores that exist: with `cheap` there is no tensor of a score that needs a skipped layer. */
export async function writeScores(
  path: string,
  record: ScoresRecord,
  layers: readonly LayerScore[],
  units: ReadonlyMap<string, Float64Array>,
): Promise<void> {
  const ofLayers = Object.entries(LAYER_TENSORS).flatMap(([name, key]): [string, Float64Array][] => {
    const values = layers.flatMap((layer) => layer[key] ?? []);
    return values.length === layers.length ? [[name, Float64Array.from(values)]] : [];
  });
  const tensors = [...ofLayers, ...units];
  const entries = tensors.map(([name, { length }]) => ({ name, dtype: "F64" as const, shape: [length] }));
  await writeTensorFile(path, entries, { [SCORES_KEY]: JSON.stringify(record) }, async (write) => {
    for (const [name, values] of tensors) await write(name, 0, bytesOfArray(values));
  });
}
