/**
 * The automatic recipe of a destination whose tensors have a type each, such as a GGUF. Forward passes measure what it costs to
 * give each matrix its smallest type; the costs of larger types follow. Then whole assignments are measured, from the curve of
 * size against divergence on to the neighbours of the best one. The plain kinds of files are measured too, so that the recipe is
 * never worse than a kind of the same size.
 */
import type { TypeChooser } from "../../formats/format.ts";
import { type LoadedModel, readScaleValues } from "../checkpoint/load.ts";
import { recipeFileOf } from "../convert/conversion-record.ts";
import type { Plan } from "../convert/types.ts";
import { IsologitError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import { promptOf } from "../inference/prompts.ts";
import { limitExcesses, looksTrained, readLimits } from "../verify/limits.ts";
import {
  bytesWith,
  fillSize,
  type Ladders,
  laddersOf,
  neighboursOf,
  pathOf,
  reductionsOf,
  spread,
} from "./assignments.ts";
import { bestOf } from "./curve.ts";
import { Measuring } from "./measuring.ts";
import { AUTO, type SearchOptions, searchLimits } from "./options.ts";
import type { RecipePoint, RecipeSearch } from "./report.ts";
import { bytesWithin, pointAt, type Space, spaceOf } from "./type-space.ts";
import { type Assignment, recipeOfTypes, roundTypes, typedTensors, variantOf } from "./typed-tensors.ts";

/** Assignments that are measured at a time. */
const AT_ONCE = 24;
/** How much differences between tensors count, in the assignments that fill a size. */
const EXPONENTS = [1, 0.75, 0.5, 0.25, 0] as const;
/** Rounds of measurements around the best assignment. */
const ROUNDS = 3;

/** @throws as `searchRecipe` */
export async function searchTypes(
  model: LoadedModel,
  given: SearchOptions,
  planWith: (recipe: Recipe) => Promise<Plan>,
  chooser: TypeChooser,
): Promise<{ readonly recipe: Recipe; readonly search: RecipeSearch }> {
  refuseUnrunnable(model);
  if (given.keepEnds !== undefined) {
    const message = '`keepEnds` has no meaning where `recipe` "auto" chooses the type of each tensor';
    throw new IsologitError("USAGE", message);
  }
  const options = await readLimits(given);
  const plan = await planWith({ id: AUTO, keepEnds: 0, cast: [], types: {} });
  const tensors = await typedTensors(plan, chooser);
  const space = await spaceOf(plan, tensors, chooser);
  const prompt = await promptOf(options, model.checkpoint, model.dims.vocab);
  const source = await readScaleValues(model);
  const withTypes = (assignment: Assignment) => planWith(recipeOfTypes(AUTO, tensors, assignment));
  const { sources, ...rounded } = await roundTypes(source, tensors, withTypes, options);
  await using measuring = await Measuring.open(source, rounded, sources, prompt, options);

  const free = tensors.flatMap(({ types }, i) => (types.length > 1 ? [i] : []));
  const summaries = await measuring.run(
    free.map((i) => new Map([[tensors[i]!.name, tensors[i]!.types[0]!]])),
  );
  const alone = tensors.map((_, i) => summaries[free.indexOf(i)]?.klMean ?? 0);
  const trained = looksTrained(summaries[0]!, prompt.textTokens || prompt.ids.length, model.dims.vocab);
  const limits = searchLimits(options, new Set(tensors.map(({ types }) => types[0]!)), trained);
  const points = new MeasuredPoints(space, limits, measuring);
  await measurePoints(points, alone);

  const { sorted, chosen } = points.ranked();
  const { assignment } = sorted[chosen]!;
  const recipe = recipeOfTypes(AUTO, tensors, assignment);
  const { backend, device, readings } = measuring;
  return {
    recipe,
    search: {
      recipe: recipeFileOf(recipe),
      ...{ tokens: prompt.ids.length, readings, backend, device, limits },
      layers: [],
      tensors: free.map((i) => {
        const { name: tensor, role, layer, types } = tensors[i]!;
        const dtype = types[assignment[i]!]!;
        return { tensor, role, layer, smallest: types[0]!, klMean: alone[i]!, dtype };
      }),
      points: sorted.map(({ point }) => point),
      chosen,
    },
  };
}

/** Measures the kinds of files and the curve, then the assignments that fill the size, then those near the best one. */
async function measurePoints(points: MeasuredPoints, alone: readonly number[]): Promise<void> {
  const { tensors, kinds } = points.space;
  const { bits } = points.limits;
  const laddersAt = (exponent: number) => laddersOf(tensors, alone, exponent);
  const ladders = laddersAt(1);
  await points.measure([...kinds.keys()]);
  await points.measure(spread(pathOf(ladders), AT_ONCE));
  const most = bits === undefined ? null : bytesWithin(points.space, bits);
  const smallest = tensors.map(() => 0);
  if (most !== null && bytesWith(ladders, smallest) <= most)
    await points.measure(EXPONENTS.map((exponent) => fillSize(laddersAt(exponent), smallest, most)));
  for (let round = 0; round < ROUNDS; round++) {
    const start = points.best();
    if (start === null) return;
    const own = round % 2 === 0 ? ladders : laddersAt(0.5);
    await points.measure(
      most === null
        ? [...points.below(start, pathOf(own), ladders), ...reductionsOf(ladders, start, AT_ONCE)]
        : neighboursOf(own, start, most),
    );
  }
}

interface Measured {
  readonly assignment: Assignment;
  readonly point: RecipePoint;
}

/** The assignments that were measured. */
class MeasuredPoints {
  readonly space: Space;
  readonly limits: RecipeSearch["limits"];
  readonly #measuring: Measuring;
  readonly #points = new Map<string, Measured>();
  /** assignments with a type that cannot hold a weight: their logits are no numbers */
  readonly #impossible = new Set<string>();

  constructor(space: Space, limits: RecipeSearch["limits"], measuring: Measuring) {
    this.space = space;
    this.limits = limits;
    this.#measuring = measuring;
  }

  /** Measures the first AT_ONCE of these that are new. */
  async measure(assignments: readonly Assignment[]): Promise<void> {
    const wanted = new Map(assignments.map((assignment) => [assignment.join(), assignment]));
    for (const known of [...this.#points.keys(), ...this.#impossible]) wanted.delete(known);
    const next = [...wanted].slice(0, AT_ONCE);
    if (next.length === 0) return;
    const { tensors } = this.space;
    const found = await this.#measuring.run(next.map(([, assignment]) => variantOf(tensors, assignment)));
    for (const [i, [key, assignment]] of next.entries()) {
      if (Number.isFinite(found[i]!.klMean))
        this.#points.set(key, { assignment, point: pointAt(this.space, assignment, found[i]!) });
      else this.#impossible.add(key);
    }
  }

  /** Null if no point is within the limits. */
  best(): Assignment | null {
    const all = [...this.#points.values()];
    const points = all.map(({ point }) => point);
    const index = bestOf(points, this.limits);
    return index === null ? null : all[index]!.assignment;
  }

  /** Assignments of a path that are smaller than another one, and larger than all smaller ones that were measured. */
  below(start: Assignment, path: readonly Assignment[], ladders: Ladders): readonly Assignment[] {
    const high = bytesWith(ladders, start);
    const sizes = [...this.#points.values()].map(({ assignment }) => bytesWith(ladders, assignment));
    const low = Math.max(0, ...sizes.filter((size) => size < high));
    const inside = path.filter((assignment) => {
      const size = bytesWith(ladders, assignment);
      return size > low && size < high;
    });
    return spread(inside, AT_ONCE / 2);
  }

  /** The largest first. @throws PLAN_IMPOSSIBLE if no point is within the limits */
  ranked(): { readonly sorted: readonly Measured[]; readonly chosen: number } {
    const sorted = [...this.#points.values()].sort((a, b) => b.point.bytes - a.point.bytes);
    const points = sorted.map(({ point }) => point);
    if (points.length === 0)
      throw new IsologitError("NON_FINITE", "the logits are no numbers with any types that were tried");
    const chosen = bestOf(points, this.limits);
    if (chosen === null) throw beyondLimits(points, this.limits);
    return { sorted, chosen };
  }
}

/** @param points the largest first */
function beyondLimits(
  points: readonly RecipePoint[],
  { bits, ...quality }: RecipeSearch["limits"],
): IsologitError {
  const [largest, smallest] = [points[0]!, points.at(-1)!];
  const figure = (value: number) => Number(value.toPrecision(4));
  const impossible = (message: string, next: string) =>
    new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
  if (bits !== undefined && smallest.bitsPerWeight > bits) {
    const message = `with the smallest type of each matrix a weight has ${figure(smallest.bitsPerWeight)} bits, and ${bits} are allowed`;
    return impossible(message, "allow more `bits`");
  }
  const fitting = bits === undefined ? largest : points.find(({ bitsPerWeight }) => bitsPerWeight <= bits)!;
  const excesses = limitExcesses(fitting, quality).join(", ");
  const message = `at ${figure(fitting.bitsPerWeight)} bits a weight, ${excesses}`;
  return impossible(
    message,
    bits === undefined ? "allow a larger `kl`" : "allow more `bits` or a larger `kl`",
  );
}
