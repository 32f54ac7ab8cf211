/** The curve of size against divergence: its points, and the best of them within the limits. */
import type { LoadedModel } from "../checkpoint/load.ts";
import type { Plan } from "../convert/types.ts";
import { bytesOf, countOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { formatQuantity } from "../core/figures.ts";
import { type Limits, limitExcesses } from "../verify/limits.ts";
import type { LayerSensitivity, RecipePoint, RecipeSearch } from "./report.ts";

/** Sizes of a checkpoint that casts some of the layers. */
interface Sizes {
  /** number of weights of the model */
  readonly weights: number;
  bytesWith(cast: readonly LayerSensitivity[]): number;
}

/** Sizes follow from the plan, which casts all layers. */
export function sizesOf(
  { roles }: LoadedModel,
  { manifest }: Plan,
  layers: readonly LayerSensitivity[],
): Sizes {
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  const saved = (of: readonly LayerSensitivity[]) => sum(of.map(({ bytesSaved }) => bytesSaved));
  const most = sum(manifest.tensors.map(({ dtype, shape }) => bytesOf(dtype, shape))) + saved(layers);
  return {
    weights: sum([...roles.values()].map(({ shape }) => countOf(shape))),
    bytesWith: (cast) => most - saved(cast),
  };
}

export function pointOf(
  cast: readonly LayerSensitivity[],
  { weights, bytesWith }: Sizes,
  { klMean, klP99, top1 }: Limits,
): RecipePoint {
  const bytes = bytesWith(cast);
  const numbers = cast.map(({ layer }) => layer).sort((a, b) => a - b);
  return { cast: numbers, bytes, bitsPerWeight: (8 * bytes) / weights, klMean, klP99, top1 };
}

/** Most sets that are measured beside the curve. */
const MOST_SETS = 16;

/** Steps of divergence in which sums are counted. */
const STEPS = 2000;

/**
 * Sets of layers that are likely to be better than the points of the curve, which adds layers in a fixed order. Divergences of
 * single layers add up to about that of a set, so sums find the sets that are worth a measurement.
 *
 * @param curve points that were measured: their sets are left out
 * @param start the best of them
 */
export function likelySets(
  curve: readonly RecipePoint[],
  start: RecipePoint,
  layers: readonly LayerSensitivity[],
  limits: RecipeSearch["limits"],
  { weights, bytesWith }: Sizes,
): readonly (readonly LayerSensitivity[])[] {
  const ofStart = layers.filter(({ layer }) => start.cast.includes(layer));
  const sum = ofStart.reduce((total, { klMean }) => total + klMean, 0);
  // without a limit of bits there is one of the divergence
  const most = limits.bits === undefined ? 1.25 * limits.klMean! : sum;
  if (!(most > 0 && most < Infinity)) return [];
  const sets = largestSavings(layers, most);
  const { bits } = limits;
  const wanted =
    bits === undefined
      ? sets.slice(Math.floor(0.6 * STEPS)).reverse()
      : sets.filter((set) => (8 * bytesWith(set)) / weights <= bits);
  const distinct = new Map(wanted.map((set) => [keyOf(set.map(({ layer }) => layer)), set]));
  for (const { cast } of curve) distinct.delete(keyOf(cast));
  return [...distinct.values()].slice(0, MOST_SETS);
}

/** A key for a set of layers. */
const keyOf = (layers: readonly number[]): string => [...layers].sort((a, b) => a - b).join();

/** For each sum of divergences up to `most`, in STEPS: the layers within it that save most bytes. */
function largestSavings(
  layers: readonly LayerSensitivity[],
  most: number,
): readonly (readonly LayerSensitivity[])[] {
  type Saving = { readonly bytes: number; readonly set: readonly LayerSensitivity[] };
  const best: Saving[] = new Array(STEPS + 1).fill({ bytes: 0, set: [] });
  for (const layer of layers) {
    const cost = Math.ceil((STEPS * layer.klMean) / most);
    for (let step = STEPS; step >= cost; step--) {
      const rest = best[step - cost]!;
      const bytes = rest.bytes + layer.bytesSaved;
      if (bytes > best[step]!.bytes) best[step] = { bytes, set: [...rest.set, layer] };
    }
  }
  return best.map(({ set }) => set);
}

/**
 * Index of the best point within the limits: the smallest checkpoint, or for a limit of bits the least divergence. Null if no
 * point is within them.
 */
export function bestOf(
  points: readonly RecipePoint[],
  { bits, ...quality }: RecipeSearch["limits"],
): number | null {
  const cost = ({ bytes, klMean }: RecipePoint) => (bits === undefined ? bytes : klMean);
  let best: number | null = null;
  for (const [i, point] of points.entries()) {
    if (bits !== undefined && point.bitsPerWeight > bits) continue;
    if (limitExcesses(point, quality).length > 0) continue;
    if (best === null || cost(point) < cost(points[best]!)) best = i;
  }
  return best;
}

/** @param points the largest checkpoint, which casts nothing, first */
export function outsideLimits(points: readonly RecipePoint[], limits: RecipeSearch["limits"]): IsologitError {
  const { bits, ...quality } = limits;
  const [none, first] = points as readonly [RecipePoint, RecipePoint];
  const impossible = (message: string, next: string) =>
    new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
  if (bits === undefined) {
    const found = `with ${formatQuantity(first.cast.length, "layer")} cast, ${limitExcesses(first, quality).join(", ")}`;
    return impossible(`no layer can be cast: ${found}`, "allow a larger `kl`");
  }
  if (none.bitsPerWeight <= bits) {
    const message = `a weight has ${figure(none.bitsPerWeight)} bits before any cast, and ${bits} are allowed`;
    return impossible(message, "give fewer `bits`, or leave out `dtype`");
  }
  const fitting = points.find(({ bitsPerWeight }) => bitsPerWeight <= bits);
  if (fitting === undefined) {
    const message = `with all layers cast a weight has ${figure(points.at(-1)!.bitsPerWeight)} bits, and ${bits} are allowed`;
    return impossible(message, "allow more `bits`");
  }
  const message = `at ${figure(fitting.bitsPerWeight)} bits a weight, ${limitExcesses(fitting, quality).join(", ")}`;
  return impossible(message, "allow more `bits` or a larger `kl`");
}

const figure = (value: number): number => Number(value.toPrecision(4));
