/**
 * Destinations whose tensors have a type each, by a kind of file, such as q4_k_m, or by a recipe: the choice, and what a plan
 * tells about it.
 */
import type { NamedShape, TypeChoice, TypeChooser, Writer } from "../../../formats/format.ts";
import { bitsOf, blockElements, countOf, type DType, isFileKind } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import { formatQuantity } from "../../core/figures.ts";
import { shapeOf } from "../../core/mapping/layout.ts";
import type { ExpectedTensor } from "../../families/expand.ts";
import type { Recipe } from "../../families/family.ts";
import type { PluginOptions } from "../../plugins/plugin.ts";
import { registryOf } from "../../plugins/registry.ts";
import type { Policy } from "../../quantization/policy.ts";
import type { PlannedWeight } from "../planned-weights.ts";

/** What a kind of file, or a recipe with types, makes of the weights of a model. */
export interface FileKindReport {
  /** the kind of file, or the id of the recipe */
  readonly id: string;
  /** mean of all weights, vectors included */
  readonly bitsPerWeight: number;
  readonly types: readonly { readonly dtype: string; readonly tensors: number; readonly weights: number }[];
  readonly fallbacks: readonly TypeFallback[];
}

/** Tensors whose rows are no whole blocks of the type that the kind of file gives them. */
interface TypeFallback {
  readonly from: string;
  readonly to: string;
  readonly tensors: number;
  /** elements of a block of `from` */
  readonly block: number;
  /** the different lengths of their rows */
  readonly rows: readonly number[];
}

/** The kind of file, or the id of the recipe, that gives each tensor a type; null: there is none. */
export function typeRule({ kind, recipe }: Pick<Policy, "kind" | "recipe">): string | null {
  if (isFileKind(kind)) return kind;
  return recipe?.types === undefined ? null : recipe.id;
}

/**
 * The types of a kind of file or of a recipe, by the names of the stored tensors; null if the policy is none of them.
 *
 * @throws USAGE if the destination has no types tensor by tensor; RECIPE_INVALID for a tensor or a type that it cannot have
 */
export async function chooseTypes(
  { kind, recipe }: Policy,
  writer: Writer,
  stored: readonly ExpectedTensor[],
  options: PluginOptions,
): Promise<ReadonlyMap<string, TypeChoice> | null> {
  const rule = typeRule({ kind, recipe });
  if (rule === null) return null;
  const { tensorTypes: chooser } = writer;
  const tensors = stored.map(({ name, layout }) => ({ name, shape: shapeOf(layout) }));
  if (chooser !== undefined)
    return isFileKind(kind) ? await chooser.ofKind(kind, tensors) : await typesOf(recipe!, chooser, tensors); // a rule is one of them
  const able = registryOf(options).formats.filter(({ writes }) => writes?.tensorTypes !== undefined);
  const what = isFileKind(kind) ? `\`dtype\` ${rule}` : `the recipe ${rule} with types`;
  const message = `${what} has no meaning for what ${writer.software} loads`;
  const next = `choose \`to\` ${able.map(({ id }) => id).join(" or ")}, or another \`dtype\``;
  throw new IsologitError("USAGE", message, {}, { next });
}

/** The types of a recipe; a matrix that it does not name becomes Q8_0, as in the kind of file of that name. */
async function typesOf(
  { id, types = {} }: Recipe,
  chooser: TypeChooser,
  tensors: readonly NamedShape[],
): Promise<ReadonlyMap<string, TypeChoice>> {
  const choices = new Map(await chooser.ofKind("q8_0", tensors));
  const possible = await chooser.possible(tensors);
  for (const [dtype, names] of Object.entries(types) as [DType, readonly string[]][]) {
    for (const name of names) {
      const able = possible.get(name);
      if (able?.includes(dtype) === true) {
        choices.set(name, { dtype });
        continue;
      }
      const message =
        able === undefined
          ? `recipe ${id} names ${name}, and the destination has no such tensor`
          : `recipe ${id} makes ${name} ${dtype}; it can be ${able.join(", ")}`;
      throw new IsologitError("RECIPE_INVALID", message);
    }
  }
  return choices;
}

/** @param choices what `chooseTypes` returned */
export function describeFileKind(
  id: string,
  weights: readonly PlannedWeight[],
  choices: ReadonlyMap<string, TypeChoice>,
): FileKindReport {
  const types = new Map<string, FileKindReport["types"][number]>();
  const fallbacks = new Map<string, TypeFallback>();
  let bits = 0;
  let total = 0;
  for (const { name, dtype, layout } of weights) {
    const shape = shapeOf(layout);
    const count = countOf(shape);
    bits += count * bitsOf(dtype);
    total += count;
    const { tensors, weights: before } = types.get(dtype) ?? { tensors: 0, weights: 0 };
    types.set(dtype, { dtype, tensors: tensors + 1, weights: before + count });
    const { instead: from, dtype: chosen } = choices.get(name)!;
    if (from === undefined || chosen !== dtype) continue;
    const key = `${from} ${dtype}`;
    const known = fallbacks.get(key) ?? { tensors: 0, rows: [] };
    const rows = [...new Set([...known.rows, shape.at(-1)!])];
    fallbacks.set(key, { from, to: dtype, tensors: known.tensors + 1, block: blockElements(from), rows });
  }
  return {
    id,
    bitsPerWeight: bits / total,
    types: [...types.values()],
    fallbacks: [...fallbacks.values()],
  };
}

/** `Q4_K -> Q5_0 for 141 tensors: rows of 2688 are no multiple of 256` */
export function fallbackWarnings({ fallbacks }: FileKindReport): readonly string[] {
  return fallbacks.map(({ from, to, tensors, block, rows }) => {
    const reason = `rows of ${rows.join(", ")} are no multiple of ${block}`;
    return `${from} -> ${to} for ${formatQuantity(tensors, "tensor")}: ${reason}`;
  });
}
