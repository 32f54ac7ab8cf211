/** The small trained model that was cut and measured in many shapes, its recorded scores, and the recorded results. */
import { readFileSync } from "node:fs";
import { loadModelWithScales, type ModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import type { LayerCut } from "../../src/pruning/search/cut-runs.ts";
import { arraysOf } from "./goldens.ts";

export const minipuzzle = (name: string): string =>
  new URL(`../../fixtures/minipuzzle/${name}`, import.meta.url).pathname;

const jsonOf = (name: string) => JSON.parse(readFileSync(minipuzzle(name), "utf8"));

/** `M-M-M*-M-M*-M-M*-M-`, MLPs of 128 channels */
export const parentModel = async (): Promise<ModelWithScales> =>
  loadModelWithScales(await openCheckpoint(minipuzzle("parent")), {});

type Prompts = readonly (readonly number[])[];

/** Prompts on which damage was measured, of 33 and 130 tokens. */
export const heldout: Prompts = jsonOf("parent.heldout.json");

/** Prompts on which scores were measured, of 9 to 70 tokens. */
export const calibration: Prompts = jsonOf("parent.calibration.json");

/** A shape of the parent, and what an independent program measured on it. */
export interface RecordedCandidate {
  readonly attention: number;
  readonly mamba: number;
  readonly mlp: number;
  readonly ffn: number;
  readonly parameters: number;
  readonly memory: number;
  readonly klMean: number;
  readonly top1: number;
  readonly nll: number;
  readonly accuracy: number;
}

interface RecordedAnswer {
  readonly memory: number;
  readonly best: readonly RecordedCandidate[];
  readonly parameters: number;
  readonly best_parameters: readonly RecordedCandidate[];
}

export const recorded: {
  readonly candidates: readonly RecordedCandidate[];
  readonly answers: readonly RecordedAnswer[];
} = jsonOf("parent.search.json");

/** Recorded scores by tensor name, F64. */
export async function recordedScores(): Promise<(name: string) => readonly number[]> {
  const arrays = await arraysOf(minipuzzle("parent.importance.safetensors"));
  return (name) => {
    const { bytes } = arrays.get(name)!;
    return [...new Float64Array(bytes.slice().buffer)];
  };
}

const LETTERS = { attention: "*", mamba: "M", mlp: "-" };

/** What stays in a shape: of each kind the layers with the largest mse, of each MLP the channels with the largest contribution. */
export function cutOf(
  { ffn, ...counts }: Pick<RecordedCandidate, "attention" | "mamba" | "mlp" | "ffn">,
  scores: (name: string) => readonly number[],
): LayerCut {
  const pattern = [..."M-M-M*-M-M*-M-M*-M-"];
  const best = (indices: readonly number[], values: readonly number[], count: number) =>
    [...indices]
      .sort((a, b) => values[b]! - values[a]! || a - b)
      .slice(0, count)
      .sort((a, b) => a - b);
  const kinds = Object.keys(LETTERS) as (keyof typeof LETTERS)[]; // the literal has no other keys
  const layers = kinds.flatMap((kind) => {
    const ofKind = [...pattern.keys()].filter((layer) => pattern[layer] === LETTERS[kind]);
    return best(ofKind, scores("layer.mse"), counts[kind]);
  });
  const channels = [...Array(128).keys()];
  const mlps = ffn === 128 ? [] : layers.filter((layer) => pattern[layer] === "-");
  return {
    layers: layers.sort((a, b) => a - b),
    ffn: new Map(mlps.map((layer) => [layer, best(channels, scores(`ffn.contribution.${layer}`), ffn)])),
  };
}
