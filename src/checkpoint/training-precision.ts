/** How a training run computed, by the states that Transformer Engine stored for its modules. Weights are not read. */
import type { Checkpoint, ModuleState } from "../core/checkpoint.ts";
import { withLocation } from "../core/errors.ts";
import { formatQuantity } from "../core/figures.ts";
import { Sources } from "../core/read.ts";

/** FP8 of a training run. */
export interface TrainingPrecision {
  /** such as `DelayedScaling, HYBRID, history of 1024 steps` -> number of modules */
  readonly recipes: Readonly<Record<string, number>>;
  /** modules whose state was read */
  readonly modules: number;
  /** of these, how many store scales */
  readonly withScales: number;
}

/** A mixture of experts may have thousands of modules with one recipe. */
const MOST_MODULES = 1024;

/**
 * @returns null if no module was trained in FP8
 * @throws PICKLE_REFUSED, PICKLE_INVALID, TRUNCATED, LIMIT_EXCEEDED and others for a state that is no state of the engine;
 *   they name the file and the module
 */
export async function readTrainingPrecision({
  moduleStates = [],
  store,
}: Checkpoint): Promise<TrainingPrecision | null> {
  if (moduleStates.length === 0) return null;
  await using sources = new Sources(store);
  const recipes = new Map<string, number>();
  const read = moduleStates.slice(0, MOST_MODULES);
  let withScales = 0;
  for (const state of read) {
    const found = await extraStateOf(state, sources);
    if (found === null) continue;
    if (found.scales > 0) withScales++;
    const parts = [
      found.recipe,
      found.format,
      found.history && `history of ${formatQuantity(found.history, "step")}`,
    ];
    const recipe = parts.filter((part) => part !== null).join(", ");
    recipes.set(recipe, (recipes.get(recipe) ?? 0) + 1);
  }
  if (recipes.size === 0) return null;
  return { recipes: Object.fromEntries(recipes), modules: read.length, withScales };
}

/** In a few words, for people. */
export function describeTraining({ recipes, modules, withScales }: TrainingPrecision): string {
  const named = Object.entries(recipes).map(
    ([recipe, count]) => `${recipe}: ${formatQuantity(count, "module")}`,
  );
  const scaled = withScales === 0 ? "" : `; ${withScales} with scales`;
  return `FP8 of Transformer Engine (${named.join("; ")} of ${modules}${scaled})`;
}

async function extraStateOf({ module, file, stored }: ModuleState, sources: Sources) {
  const { readExtraState, readPayload } = await import(
    "../../formats/codec/transformer-engine/extra-state.ts"
  );
  const at = { file, tensor: module };
  return await sources
    .use(file, async (source) => {
      const payload = "archive" in stored ? await readPayload(source, file, stored.archive) : stored.payload;
      return payload === null ? null : await readExtraState(source, payload, at);
    })
    .catch((error: unknown) => {
      throw withLocation(error, at);
    });
}
