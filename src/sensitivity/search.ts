/** The automatic recipe: which search finds it, and whether one was asked for. */
import type { Writer } from "../../formats/format.ts";
import type { LoadedModel } from "../checkpoint/load.ts";
import type { Plan } from "../convert/types.ts";
import { isFp8, mainDType } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import { AUTO, type SearchOptions } from "./options.ts";
import type { RecipeSearch } from "./report.ts";

/**
 * Searches the automatic recipe: layers to cast, or the type of each tensor where the destination's tensors have types one by one.
 *
 * @param planWith plans the conversion with a recipe
 * @param writer   of the destination
 * @returns null if the options name another recipe or none
 * @throws USAGE for options without a meaning; UNSUPPORTED for a model that does not run, or that is quantised already;
 *   PLAN_IMPOSSIBLE where no recipe is within the limits; PLAN_MEMORY; NON_FINITE for a weight; read errors
 */
export async function searchRecipe(
  model: LoadedModel,
  given: SearchOptions,
  planWith: (recipe: Recipe) => Promise<Plan>,
  { tensorTypes }: Writer,
): Promise<{ readonly recipe: Recipe; readonly search: RecipeSearch } | null> {
  const { dtype = "keep" } = given;
  const chooser = dtype === "keep" ? tensorTypes : undefined;
  refuseSearch(given, tensorTypes);
  if (given.recipe !== AUTO) return null;
  // code that runs a model is loaded only here: most conversions need none
  if (chooser !== undefined)
    return await (await import("./search-types.ts")).searchTypes(model, given, planWith, chooser);
  return await (await import("./search-layers.ts")).searchLayers(model, given, planWith);
}

/** @throws USAGE for options without a meaning */
function refuseSearch(
  { recipe, bits, dtype = "keep" }: SearchOptions,
  tensorTypes: Writer["tensorTypes"],
): void {
  if (recipe !== AUTO) {
    if (bits === undefined) return;
    throw new IsologitError("USAGE", '`bits` has no meaning without `recipe` "auto"');
  }
  if (bits !== undefined && !(bits > 0)) throw new IsologitError("USAGE", `\`bits\` is ${bits}`);
  const to = mainDType(dtype);
  if (to !== null && isFp8(to)) return;
  if (tensorTypes !== undefined) {
    if (to === null) return;
    const message = `\`recipe\` "auto" chooses the type of each tensor, and \`dtype\` ${dtype} does too`;
    throw new IsologitError("USAGE", message, {}, { next: "leave `dtype` out" });
  }
  const message = '`recipe` "auto" chooses what becomes FP8, and no FP8 `dtype` is given';
  throw new IsologitError("USAGE", message, {}, { next: "add `dtype` fp8-e4m3, or choose `to` gguf" });
}
