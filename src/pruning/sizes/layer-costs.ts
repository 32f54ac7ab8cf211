/** What one layer of each kind costs at given widths. The size of a shape is a sum of these costs. */
import { countOf } from "../../core/dtype.ts";
import { carriedElements } from "../../families/carried.ts";
import { ruleApplies } from "../../families/expand.ts";
import type { RecognisedModel } from "../../families/model.ts";
import { dimsOfShape, type PrunedShape } from "./shape.ts";

export interface LayerCosts {
  /** parameters outside the main layers: token table, head, last norm, and the layers of multi-token prediction */
  readonly outside: number;
  /** by layer kind */
  readonly kinds: Readonly<Record<string, LayerCost>>;
}

interface LayerCost {
  readonly parameters: number;
  /** elements of the KV cache for each token */
  readonly perToken: number;
  /** elements of the state of one sequence */
  readonly state: number;
}

/**
 * Costs at the widths of a shape. A role that shares the tensor of another one costs nothing; the layers of multi-token
 * prediction all stay, and their caches are not counted.
 */
export function layerCosts(model: RecognisedModel, shape: PrunedShape): LayerCosts {
  const { family, tied, layers } = model;
  const d = dimsOfShape(model, shape);
  const widths = family.forward.streams(d);
  const present = family.roles
    .filter((spec) => spec.when?.(d) !== false && !(tied && spec.tiedTo !== undefined))
    .map((spec) => ({ spec, each: countOf(spec.shape(d)) * (spec.experts?.(d) ?? 1) }));
  const sum = (of: typeof present) => of.reduce((total, { each }) => total + each, 0);
  const predicted = layers.filter(({ stack }) => stack === "mtp");
  const outside =
    sum(present.filter(({ spec }) => spec.on === undefined)) +
    predicted.reduce((total, one) => total + sum(present.filter(({ spec }) => ruleApplies(spec, one))), 0);
  const costOf = (kind: string): LayerCost => {
    const layer = { stack: "main", index: 0, kind, inner: 0, of: 1 } as const;
    const parameters = sum(present.filter(({ spec }) => ruleApplies(spec, layer)));
    const { perToken, fixed: state } = carriedElements([family.forward.block(kind, d)], widths, d);
    return { parameters, perToken, state };
  };
  const kinds = Object.keys(shape.counts).filter((kind) => shape.counts[kind]! > 0);
  return { outside, kinds: Object.fromEntries(kinds.map((kind) => [kind, costOf(kind)])) };
}

/** The sum of one cost over the layers of a shape. */
export const costOfLayers = ({ kinds }: LayerCosts, { counts }: PrunedShape, cost: keyof LayerCost): number =>
  Object.entries(counts).reduce(
    (sum, [kind, count]) => (count === 0 ? sum : sum + count * kinds[kind]![cost]),
    0,
  );
