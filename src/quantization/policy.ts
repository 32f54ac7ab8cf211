/** Which roles a recast casts: decided from names and kinds, before any weight is read. */
import {
  type CastDType,
  type DType,
  isDecodedBlock,
  isFileKind,
  isFnuz,
  isFp8,
  isNumeric,
  mainDType,
  RECASTS,
  type RecastTarget,
  type TorchDType,
} from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import { findRecipe, keptReason, type LayerAt, RECIPE_FILE, type RoleKind } from "./recipe.ts";

/** Options that decide which weights are cast. */
export interface PolicyOptions {
  readonly dtype?: RecastTarget;
  readonly recipe?: string;
  readonly keepEnds?: number;
}

/** The type of matrices that a recipe with types does not name, where their rows are whole blocks. */
const TYPE_OF_OTHERS = "Q8_0";

export interface Policy {
  readonly kind: RecastTarget;
  /** null: nothing is cast; for a kind of file, the type of most matrices; for a recipe with types, that of the others */
  readonly to: CastDType | null;
  /** null: every role is cast */
  readonly recipe: Recipe | null;
  /** the type that config.json then names for the whole model; null: its present type stays right */
  readonly torchDtype: TorchDType | null;
}

/**
 * The policy for these options. FP8 without a recipe uses the first recipe of the family.
 *
 * @param chosen in place of the recipe that the options name
 * @throws USAGE          when options contradict each other
 * @throws RECIPE_INVALID when the recipe is unknown or wrong, or casts a role to FP8 that is not a projection
 * @throws NOT_FOUND      when the recipe file is missing
 */
export async function policyOf(
  options: PolicyOptions,
  family: { readonly recipes: readonly Recipe[]; readonly roles: readonly RoleKind[] },
  chosen?: Recipe,
): Promise<Policy> {
  const { dtype: kind = "keep", keepEnds } = options;
  const to = mainDType(kind);
  const torchDtype = kind === "keep" || isFileKind(kind) ? null : RECASTS[kind].torch;
  if (to === null && options.recipe !== undefined) return await policyOfTypes(options, family, chosen);
  if (keepEnds !== undefined && !(Number.isSafeInteger(keepEnds) && keepEnds >= 0)) {
    throw new IsologitError("USAGE", `\`keepEnds\` is ${keepEnds}, not a number of layers`);
  }
  if (isFileKind(kind) && (options.recipe ?? keepEnds) !== undefined) {
    const message = `the kind of file ${kind} chooses the type of each tensor itself`;
    const next = "leave `recipe` and `keepEnds` out";
    throw new IsologitError("USAGE", message, {}, { next });
  }
  const recipeName = options.recipe ?? (to !== null && isFp8(to) ? family.recipes[0]?.id : undefined);
  if (recipeName === undefined) {
    if (keepEnds !== undefined) throw usage("`keepEnds`", "`recipe` or an FP8 `dtype`");
    return { kind, to, recipe: null, torchDtype };
  }
  const recipe = chosen ?? (await findRecipe(recipeName, family.recipes, family.roles));
  if (recipe.types !== undefined) {
    const message = `the recipe ${recipe.id} chooses the type of each tensor itself`;
    throw new IsologitError("USAGE", message, {}, { next: "leave `dtype` out" });
  }
  if (to !== null && isFp8(to)) refuseNonProjections(recipe, family.roles);
  return { kind, to, torchDtype: null, recipe: { ...recipe, keepEnds: keepEnds ?? recipe.keepEnds } };
}

/** The policy of a recipe that names the type of each tensor: such a recipe alone has a meaning without `dtype`. */
async function policyOfTypes(
  { recipe: name, keepEnds }: PolicyOptions,
  family: { readonly recipes: readonly Recipe[]; readonly roles: readonly RoleKind[] },
  chosen: Recipe | undefined,
): Promise<Policy> {
  const isFile = name !== undefined && RECIPE_FILE.test(name);
  const recipe = chosen ?? (isFile ? await findRecipe(name, family.recipes, family.roles) : undefined);
  if (recipe?.types === undefined) throw usage("`recipe`", "`dtype`");
  if (keepEnds !== undefined) throw usage("`keepEnds`", "a recipe that casts layers");
  return { kind: "keep", to: TYPE_OF_OTHERS, torchDtype: null, recipe };
}

/** The new type of one role, or "keep", and the reason in words. */
interface RoleDecision {
  readonly to: "keep" | CastDType;
  readonly why: string;
}

/**
 * What becomes of one role.
 *
 * For f32, f16 and bf16 every float is cast, except that `state` roles (A_log, D, dt_bias) and `router` roles never lose
 * precision: the recurrence and the choice of experts depend on them. A recipe may exclude more roles. FP8 is for matrices
 * only.
 *
 * @param role  its kind, and its layer (null for a role that a model has once)
 * @param dtype type in the source
 * @param model all layers, because a recipe may refer to the ends and to neighbours
 */
export function decideRole(
  role: { readonly spec: RoleKind; readonly layer: LayerAt | null },
  dtype: DType,
  { to, recipe }: Pick<Policy, "to" | "recipe">,
  model: { readonly layers: readonly LayerAt[] },
): RoleDecision {
  const { spec, layer } = role;
  const keep = (why: string): RoleDecision => ({ to: "keep", why });
  if (to === null) return keep("no dtype is asked for");
  if (dtype === to) return keep(`it is ${dtype}`);
  if (!(isNumeric(dtype) || isFnuz(dtype) || dtype === "F4")) return keep(`${dtype} is not cast`);
  const reason = recipe === null ? null : keptReason(recipe, spec.role, layer, model.layers);
  if (reason !== null) return keep(reason);
  if (isFp8(to) && spec.kind !== "matrix") return keep("only projections are cast to FP8");
  const precious = spec.kind === "state" || spec.kind === "router";
  const holdsAll = to === "F32" || isFp8(dtype) || isFnuz(dtype) || isDecodedBlock(dtype);
  if (precious && !holdsAll) return keep(`a ${spec.kind} role keeps its precision`);
  return { to, why: recipe === null ? "every weight is cast" : `recipe ${recipe.id} casts it` };
}

/** A pattern selects only the projections among its roles; a role that is named exactly must be a projection. */
function refuseNonProjections(recipe: Recipe, roles: readonly RoleKind[]): void {
  for (const { role, kind } of roles) {
    if (kind === "matrix" || !recipe.cast.includes(role)) continue;
    const message = `recipe ${recipe.id} casts ${role}, a ${kind}; only projections are cast to FP8`;
    throw new IsologitError("RECIPE_INVALID", message);
  }
}

function usage(option: string, needs: string): IsologitError {
  return new IsologitError("USAGE", `${option} has no meaning without ${needs}`);
}
