/** Which roles a recast touches: decided from names and kinds alone, before a byte is read. */
import {
  type DType,
  type FloatDType,
  isFloat,
  isFp8,
  RECASTS,
  type RecastTarget,
  type TorchDType,
} from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import { findRecipe, type LayerAt, type RoleKind, recipeCastsRole } from "./recipe.ts";

/** Options that decide which weights are cast. */
export interface PolicyOptions {
  readonly dtype?: RecastTarget;
  readonly recipe?: string;
  readonly keepEnds?: number;
}

export interface Policy {
  readonly kind: RecastTarget;
  /** null: nothing is cast */
  readonly to: FloatDType | null;
  /** null: every role is cast */
  readonly recipe: Recipe | null;
  /** what config.json then says of the whole model; null: what it says stays true */
  readonly torchDtype: TorchDType | null;
}

/**
 * The policy that the flags ask for. FP8 without a recipe takes the family's first.
 *
 * @throws USAGE          when flags do not go together
 * @throws RECIPE_INVALID when the recipe is unknown or wrong, or names for FP8 what is no projection
 * @throws NOT_FOUND      when the recipe file is missing
 */
export async function policyOf(
  options: PolicyOptions,
  family: { readonly recipes: readonly Recipe[]; readonly roles: readonly RoleKind[] },
): Promise<Policy> {
  const { dtype: kind = "keep", keepEnds } = options;
  const { dtype: to, torch: torchDtype } = kind === "keep" ? { dtype: null, torch: null } : RECASTS[kind];
  if (to === null && options.recipe !== undefined) throw usage("`recipe`", "`dtype`");
  if (keepEnds !== undefined && !(Number.isSafeInteger(keepEnds) && keepEnds >= 0)) {
    throw new IsologitError("USAGE", `\`keepEnds\` is ${keepEnds}, not a number of layers`);
  }
  const asked = options.recipe ?? (to !== null && isFp8(to) ? family.recipes[0]?.id : undefined);
  if (asked === undefined) {
    if (keepEnds !== undefined) throw usage("`keepEnds`", "`recipe` or an FP8 `dtype`");
    return { kind, to, recipe: null, torchDtype };
  }
  const recipe = await findRecipe(asked, family.recipes, family.roles);
  if (to !== null && isFp8(to)) refuseOthers(recipe, family.roles);
  return { kind, to, torchDtype: null, recipe: { ...recipe, keepEnds: keepEnds ?? recipe.keepEnds } };
}

/**
 * What becomes of one role.
 *
 * Under f32, f16 and bf16 every float is cast, with two exceptions: `state` (A_log, D, dt_bias) and `router`
 * roles set recurrences and choices that the rest depends on, so they are never given less precision than they
 * have. A recipe narrows the choice further, and FP8 reaches matrices only. What is not cast stays as it is.
 *
 * @param role  its kind, and the layer it belongs to (null: once a model)
 * @param dtype as stored
 * @param model all layers, for what a recipe says of ends and neighbours
 */
export function recastFor(
  role: { readonly spec: RoleKind; readonly layer: LayerAt | null },
  dtype: DType,
  { to, recipe }: Pick<Policy, "to" | "recipe">,
  model: { readonly layers: readonly LayerAt[] },
): "keep" | FloatDType {
  const { spec, layer } = role;
  if (to === null || dtype === to || !isFloat(dtype)) return "keep";
  if (recipe !== null && !recipeCastsRole(recipe, spec.role, layer, model.layers)) return "keep";
  if (isFp8(to)) return spec.kind === "matrix" ? to : "keep";
  const precious = spec.kind === "state" || spec.kind === "router";
  const holdsAll = to === "F32" || isFp8(dtype);
  return precious && !holdsAll ? "keep" : to;
}

/** A pattern reaches the projections among its roles; a role named outright must be one. */
function refuseOthers(recipe: Recipe, roles: readonly RoleKind[]): void {
  for (const { role, kind } of roles) {
    if (kind === "matrix" || !recipe.cast.includes(role)) continue;
    const message = `recipe ${recipe.id} casts ${role}, a ${kind}; only projections are cast to FP8`;
    throw new IsologitError("RECIPE_INVALID", message);
  }
}

function usage(option: string, needs: string): IsologitError {
  return new IsologitError("USAGE", `${option} has no meaning without ${needs}`);
}
