/**
 * The automatic recipe by layers: forward passes measure what it costs to cast each layer, and then what it costs to cast more and more
 * of them, the cheapest first. The recipe is the smallest point of this curve within the limits.
 */
import { type LoadedModel, readScaleValues } from "../checkpoint/load.ts";
import { recipeFileOf } from "../convert/conversion-record.ts";
import type { Job, Plan } from "../convert/types.ts";
import { tensorKey } from "../core/checkpoint.ts";
import { bitsOf, bytesOf, mainDType } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import { mainLayers } from "../families/model.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import { promptOf } from "../inference/prompts.ts";
import { looksTrained, readLimits, SAME } from "../verify/limits.ts";
import { bestOf, likelySets, outsideLimits, pointOf, sizesOf } from "./curve.ts";
import { Measuring } from "./measuring.ts";
import { AUTO, type SearchOptions, searchLimits } from "./options.ts";
import type { LayerSensitivity, RecipeSearch } from "./report.ts";
import { castingLayers, LAYER_UNITS, roundLayers } from "./rounded-layers.ts";

/** A layer that can be cast. */
type Candidate = Omit<LayerSensitivity, "klMean">;

/**
 * Searches the layers to cast.
 *
 * @param planWith plans the conversion with a recipe
 * @throws UNSUPPORTED for a model that does not run, or that is quantised already; PLAN_IMPOSSIBLE where no recipe is within the
 *   limits; PLAN_MEMORY; NON_FINITE for a weight; read errors
 */
export async function searchLayers(
  model: LoadedModel,
  given: SearchOptions,
  planWith: (recipe: Recipe) => Promise<Plan>,
): Promise<{ readonly recipe: Recipe; readonly search: RecipeSearch }> {
  const { dtype = "keep" } = given;
  refuseUnrunnable(model);
  const options = await readLimits(given);
  const widest = widestRecipe(model, options);
  const plan = await planWith(widest);
  const candidates = candidatesOf(model, plan);
  const prompt = await promptOf(options, model.checkpoint, model.dims.vocab);
  const source = await readScaleValues(model);
  const { roundings, sources } = await roundLayers(source, plan, options);
  const rounded = { roundings, units: LAYER_UNITS };
  await using measuring = await Measuring.open(source, rounded, sources, prompt, options);

  const alone = await measuring.run(candidates.map(({ layer }) => castingLayers([layer])));
  const layers = candidates
    .map((candidate, i) => ({ ...candidate, klMean: alone[i]!.klMean }))
    .sort((a, b) => a.klMean / a.bytesSaved - b.klMean / b.bytesSaved || a.layer - b.layer);
  const sizes = sizesOf(model, plan, layers);
  const measure = async (sets: readonly (readonly LayerSensitivity[])[]) => {
    const summaries = await measuring.run(sets.map((set) => castingLayers(set.map(({ layer }) => layer))));
    return summaries.map((summary, i) => pointOf(sets[i]!, sizes, summary));
  };

  const curve = await measure(layers.map((_, i) => layers.slice(0, i + 1)));
  const trained = looksTrained(alone[0]!, prompt.textTokens || prompt.ids.length, model.dims.vocab);
  const to = mainDType(dtype);
  const limits = searchLimits(options, new Set(to === null ? [] : [to]), trained);
  const coarse = [pointOf([], sizes, SAME), ...curve];
  const start = coarse[bestOf(coarse, limits) ?? 0]!;
  const likely = likelySets(coarse, start, layers, limits, sizes);
  const points = [...coarse, ...(likely.length === 0 ? [] : await measure(likely))].sort(
    (a, b) => b.bytes - a.bytes,
  );
  const chosen = bestOf(points, limits);
  if (chosen === null || points[chosen]!.cast.length === 0) throw outsideLimits(points, limits);
  const cast = new Set(points[chosen]!.cast);
  const kept = mainLayers(model).filter(({ index }) => !cast.has(index));
  const recipe = { ...widest, keepLayers: kept.map(({ index }) => index) };
  const { backend, device } = measuring;
  return {
    recipe,
    search: {
      recipe: recipeFileOf(recipe),
      ...{ tokens: prompt.ids.length, readings: measuring.readings, backend, device },
      ...{ limits, layers, points, chosen },
    },
  };
}

/** The recipe that casts all that an automatic one may cast. */
function widestRecipe({ family }: LoadedModel, { keepEnds = 0 }: SearchOptions): Recipe {
  const all = family.recipes.find(({ id }) => id === "all-linear");
  if (all === undefined)
    throw new IsologitError("RECIPE_INVALID", `${family.id} has no recipe all-linear to choose from`);
  const { source: _, ...recipe } = all;
  return { ...recipe, id: AUTO, keepEnds };
}

const layerOf = ({ role }: Job): number | null => (role?.layer?.stack === "main" ? role.layer.index : null);

/** The main layers of which a plan casts weights. @throws UNSUPPORTED for weights that are codes already */
function candidatesOf(model: LoadedModel, { jobs, manifest }: Plan): readonly Candidate[] {
  const bytes = new Map(
    manifest.tensors.map((tensor) => [tensorKey(tensor), bytesOf(tensor.dtype, tensor.shape)]),
  );
  const saved = new Map<number, number>();
  for (const job of jobs) {
    const [layer, { cast }] = [layerOf(job), job];
    if (layer === null || cast === undefined) continue;
    if (cast.fromCodes === true || cast.sourceScales !== undefined) {
      const message = '`recipe` "auto" measures weights that are not quantised yet';
      const next = "convert the source with `dtype` bf16 first";
      throw new IsologitError("UNSUPPORTED", message, { tensor: job.tensor.name }, { next });
    }
    const before = (job.count * bitsOf(job.sourceDtype)) / 8;
    const scale = cast.scaleTo === undefined ? 0 : bytes.get(cast.scaleTo)!;
    saved.set(layer, (saved.get(layer) ?? 0) + before - bytes.get(tensorKey(job.tensor))! - scale);
  }
  const candidates = mainLayers(model).flatMap(({ index: layer, kind }) => {
    const bytesSaved = saved.get(layer);
    return bytesSaved === undefined || bytesSaved <= 0 ? [] : [{ layer, kind, bytesSaved }];
  });
  if (candidates.length > 0) return candidates;
  throw new IsologitError("PLAN_IMPOSSIBLE", '`recipe` "auto" finds no weight to cast in this model');
}
