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
import { bytesOf, countOf, type DType, FILE_KINDS, type FileKind } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import { promptOf } from "../inference/prompts.ts";
import { type Limits, limitExcesses, looksTrained, readLimits } from "../verify/limits.ts";
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
import {
  type Assignment,
  recipeOfTypes,
  roundTypes,
  type TypedTensor,
  typedTensors,
  variantOf,
} from "./typed-tensors.ts";

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
  const points = new Map<string, Measured>();
  const measure = async (assignments: readonly Assignment[]) => {
    const wanted = new Map(assignments.map((assignment) => [assignment.join(), assignment]));
    for (const known of points.keys()) wanted.delete(known);
    const next = [...wanted.values()].slice(0, AT_ONCE);
    if (next.length === 0) return;
    const found = await measuring.run(next.map((assignment) => variantOf(tensors, assignment)));
    for (const [i, assignment] of next.entries())
      points.set(assignment.join(), { assignment, point: pointAt(space, assignment, found[i]!) });
  };

  const trained = looksTrained(summaries[0]!, prompt.textTokens || prompt.ids.length, model.dims.vocab);
  const limits = searchLimits(options, new Set(tensors.map(({ types }) => types[0]!)), trained);
  const [ladders, flatter] = [1, 0.5].map((exponent) => laddersOf(tensors, alone, exponent)) as [
    Ladders,
    Ladders,
  ];
  const most = limits.bits === undefined ? Infinity : bytesWithin(space, limits.bits);
  const smallest = tensors.map(() => 0);
  const best = () => {
    const all = [...points.values()];
    const index = bestOf(
      all.map(({ point }) => point),
      limits,
    );
    return index === null ? null : all[index]!.assignment;
  };

  await measure([...space.kinds.keys()]);
  await measure(spread(pathOf(ladders), AT_ONCE));
  if (most < Infinity && bytesWith(ladders, smallest) <= most)
    await measure(EXPONENTS.map((exponent) => fillSize(laddersOf(tensors, alone, exponent), smallest, most)));
  for (let round = 0; round < ROUNDS; round++) {
    const start = best();
    if (start === null) break;
    if (most < Infinity) await measure(neighboursOf(round % 2 === 0 ? ladders : flatter, start, most));
    else
      await measure([
        ...between(points, start, pathOf(round % 2 === 0 ? ladders : flatter), ladders),
        ...reductionsOf(ladders, start, AT_ONCE),
      ]);
  }
  const sorted = [...points.values()].sort((a, b) => b.point.bytes - a.point.bytes);
  const all = sorted.map(({ point }) => point);
  const chosen = bestOf(all, limits);
  if (chosen === null) throw beyondLimits(all, limits);
  const recipe = recipeOfTypes(AUTO, tensors, sorted[chosen]!.assignment);
  const { backend, device, readings } = measuring;
  return {
    recipe,
    search: {
      recipe: recipeFileOf(recipe),
      ...{ tokens: prompt.ids.length, readings, backend, device, limits },
      layers: [],
      tensors: free.map((i) => {
        const { name: tensor, role, layer, types } = tensors[i]!;
        const dtype = types[sorted[chosen]!.assignment[i]!]!;
        return { tensor, role, layer, smallest: types[0]!, klMean: alone[i]!, dtype };
      }),
      points: all,
      chosen,
    },
  };
}

interface Measured {
  readonly assignment: Assignment;
  readonly point: RecipePoint;
}

/** What the sizes and the names of points follow from. */
interface Space {
  readonly tensors: readonly TypedTensor[];
  /** of the tensors without a choice */
  readonly otherBytes: number;
  /** number of weights in the tensors with a choice */
  readonly weights: number;
  /** the plain kinds of files, by their assignments */
  readonly kinds: ReadonlyMap<Assignment, FileKind>;
}

async function spaceOf(
  { manifest }: Plan,
  tensors: readonly TypedTensor[],
  chooser: TypeChooser,
): Promise<Space> {
  const free = tensors.filter(({ types }) => types.length > 1);
  if (free.length === 0) {
    const message =
      '`recipe` "auto" finds no tensor whose type it can choose: no matrix has rows of whole blocks';
    throw new IsologitError("PLAN_IMPOSSIBLE", message);
  }
  const names = new Set(free.map(({ name }) => name));
  const others = manifest.tensors.filter(({ name }) => !names.has(name));
  const kinds = new Map<Assignment, FileKind>();
  for (const kind of Object.keys(FILE_KINDS) as FileKind[]) {
    const types = await chooser.ofKind(kind, manifest.tensors);
    const assignment = tensors.map(({ name, types: all }) => all.indexOf(types.get(name)!.dtype));
    if (!assignment.includes(-1)) kinds.set(assignment, kind);
  }
  return {
    tensors,
    otherBytes: others.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0),
    weights: free.reduce((sum, { shape }) => sum + countOf(shape), 0),
    kinds,
  };
}

/** Bytes of all typed tensors at a mean size of a weight with a choice. */
function bytesWithin({ tensors, weights }: Space, bits: number): number {
  const fixed = tensors.filter(({ types }) => types.length === 1);
  return (bits * weights) / 8 + fixed.reduce((sum, { types, shape }) => sum + bytesOf(types[0]!, shape), 0);
}

function pointAt(
  { tensors, otherBytes, weights, kinds }: Space,
  assignment: Assignment,
  limits: Limits,
): RecipePoint {
  const types: Partial<Record<DType, number>> = {};
  let bytes = 0;
  for (const [i, { types: all, shape }] of tensors.entries()) {
    const dtype = all[assignment[i]!]!;
    if (all.length === 1) continue;
    types[dtype] = (types[dtype] ?? 0) + 1;
    bytes += bytesOf(dtype, shape);
  }
  const kind = [...kinds].find(([own]) => own.join() === assignment.join())?.[1];
  const { klMean, klP99, top1 } = limits;
  return {
    ...{
      cast: [],
      bytes: bytes + otherBytes,
      bitsPerWeight: (8 * bytes) / weights,
      klMean,
      klP99,
      top1,
      types,
    },
    ...(kind !== undefined && { kind }),
  };
}

/** Assignments of a path between the best point and the largest smaller one. */
function between(
  points: ReadonlyMap<string, Measured>,
  best: Assignment,
  path: readonly Assignment[],
  ladders: Ladders,
): readonly Assignment[] {
  const high = bytesWith(ladders, best);
  const sizes = [...points.values()].map(({ assignment }) => bytesWith(ladders, assignment));
  const low = Math.max(0, ...sizes.filter((size) => size < high));
  const inside = path.filter((assignment) => {
    const size = bytesWith(ladders, assignment);
    return size > low && size < high;
  });
  return spread(inside, AT_ONCE / 2);
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
