/** A pruned model in numbers, for reports. */
import type { LoadedModel } from "../checkpoint/load.ts";
import { countOf } from "../core/dtype.ts";
import { mainLayers } from "../families/model.ts";
import type { Cut } from "./cut.ts";
import type { LayerCounts, ShapeOptions } from "./options.ts";
import type { StoredScores } from "./scores/stored-scores.ts";
import type { IterativeDepth } from "./search/iterative-depth.ts";
import { countsOf } from "./select.ts";

export interface PrunedArchitecture {
  readonly pattern: string;
  /** the numbers that the layers have in the source, ascending */
  readonly layers: readonly number[];
  readonly counts: LayerCounts;
  readonly ffn: number;
  readonly mambaHeads: number;
  readonly heads: number;
  readonly hidden: number;
  readonly parameters: number;
}

export interface DroppedLayer {
  readonly layer: number;
  readonly kind: string;
  /** of its round, where layers went one at a time; null: no scores were given */
  readonly score: number | null;
}

/** @param model the cut model */
export function architectureOf(model: LoadedModel, { layers }: Cut): PrunedArchitecture {
  const dims = model.dims as unknown as Readonly<Record<"ffn" | "mambaHeads" | "heads" | "hidden", number>>; // of a family that can be cut
  const { ffn, mambaHeads, heads, hidden } = dims;
  return {
    pattern: model.family.pattern(model.settings),
    layers,
    counts: countsOf(model),
    ...{ ffn, mambaHeads, heads, hidden },
    parameters: [...model.roles.values()].reduce((sum, { shape }) => sum + countOf(shape), 0),
  };
}

/** The layers that go, with the scores by which layers are ranked. */
export async function droppedLayers(
  source: LoadedModel,
  { layers }: Cut,
  scores: StoredScores | IterativeDepth | null,
  { layerScore = "mse" }: Pick<ShapeOptions, "layerScore">,
): Promise<readonly DroppedLayer[]> {
  const main = mainLayers(source);
  const gone = main.filter(({ index }) => !layers.includes(index));
  if (scores !== null && "rounds" in scores) {
    const values = new Map(scores.rounds.map(({ layer, score }) => [layer, score]));
    return gone.map(({ index, kind }) => ({ layer: index, kind, score: values.get(index) ?? null }));
  }
  const name = `layer.${layerScore}`;
  const values = gone.length > 0 && scores?.has(name) ? await scores.read(name, main.length) : null;
  return gone.map(({ index, kind }) => ({ layer: index, kind, score: values?.[index] ?? null }));
}
