/** Recipes: which roles a recast touches. */
import { readFile } from "node:fs/promises";
import { IsologitError, systemError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import type { Layer, RoleSpec } from "../families/structure.ts";

/** A role as recipes see it, and a layer. */
export type RoleKind = Pick<RoleSpec, "role" | "kind">;
export type LayerAt = Pick<Layer, "stack" | "index" | "kind">;

/**
 * The recipe of this name, or of this file.
 *
 * @throws RECIPE_INVALID where there is none, or the file is wrong; names file and line
 * @throws NOT_FOUND
 */
export async function findRecipe(
  nameOrPath: string,
  known: readonly Recipe[],
  roles: readonly RoleKind[],
): Promise<Recipe> {
  const named = known.find(({ id }) => id === nameOrPath);
  if (named !== undefined) return named;
  if (!/\.ya?ml$/.test(nameOrPath)) {
    const ids = known.map(({ id }) => id).join(", ");
    throw new IsologitError(
      "RECIPE_INVALID",
      `there is no recipe ${nameOrPath}, only ${ids}, or a .yaml file`,
    );
  }
  const text = await readFile(nameOrPath, "utf8").catch((error: unknown) => {
    throw systemError(error, { file: nameOrPath });
  });
  // Loaded where a file is named: the YAML parser alone takes some 60 ms to load.
  const { parseRecipe } = await import("./recipe-file.ts");
  return parseRecipe(text, nameOrPath, roles);
}

/** Whether a pattern (`mlp.up`, `mlp.*`, `*`) names a role. */
export function recipeNamesRole(pattern: string, role: string): boolean {
  return (
    pattern === "*" || pattern === role || (pattern.endsWith(".*") && role.startsWith(pattern.slice(0, -1)))
  );
}

/**
 * Whether a recipe casts this role of this layer. Prediction layers (mtp) are never cast.
 *
 * @param layer  null for what a model has once
 * @param layers all layers of the model
 * @throws RECIPE_INVALID when the recipe keeps a layer that the model does not have
 */
export function recipeCastsRole(
  recipe: Recipe,
  role: string,
  layer: LayerAt | null,
  layers: readonly LayerAt[],
): boolean {
  const { keepEnds, cast, keep = [], keepLayers = [], keepBefore = [] } = recipe;
  const main = layers.filter(({ stack }) => stack === "main");
  const absent = keepLayers.find((index) => index >= main.length);
  if (absent !== undefined) {
    const message = `recipe ${recipe.id} keeps layer ${absent}; the model has layers 0 to ${main.length - 1}`;
    throw new IsologitError("RECIPE_INVALID", message);
  }
  const named = (patterns: readonly string[]) => patterns.some((pattern) => recipeNamesRole(pattern, role));
  if (!named(cast) || named(keep)) return false;
  if (layer === null) return true;
  if (layer.stack === "mtp") return false;
  if (layer.index < keepEnds || layer.index >= main.length - keepEnds) return false;
  if (keepLayers.includes(layer.index)) return false;
  const following = main.find(({ index }) => index === layer.index + 1)?.kind;
  return !keepBefore.some(({ kind, next }) => kind === layer.kind && next === following);
}
