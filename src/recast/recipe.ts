/** Recipes: which roles a recast touches, by name or from a YAML file. `docs/recipes.md` is for their authors. */
import { readFile } from "node:fs/promises";
import { type Document, isMap, isNode, LineCounter, parseDocument } from "yaml";
import { z } from "zod";
import { fromSystem, IsologitError } from "../core/errors.ts";
import type { Layer, Recipe, RoleSpec } from "../families/define.ts";

/** A role as recipes see it, and a layer. */
export type RoleKind = Pick<RoleSpec, "role" | "kind">;
export type LayerAt = Pick<Layer, "stack" | "index" | "kind">;

/** Recipes are a dozen lines; a file beyond this is no recipe. */
const MAX_RECIPE_BYTES = 64 * 1024;

const pattern = z
  .string()
  .regex(/^(\*|\w+(\.\w+)*(\.\*)?)$/, "expected a role such as mlp.up, or a prefix.*");
const schema = z.strictObject({
  id: z.string().regex(/^[\w.-]{1,64}$/, "expected up to 64 letters, digits, dots, dashes"),
  keep_ends: z.int().min(0).default(0),
  cast: z.array(pattern).min(1),
  keep: z.array(pattern).default([]),
  keep_layers: z.array(z.int().min(0)).default([]),
  keep_mamba_before_attention: z.boolean().default(false),
});

/**
 * The recipe of this name, or of this file.
 *
 * @throws RECIPE_INVALID where there is none, or the file is wrong; names file and line
 * @throws NOT_FOUND
 */
export async function recipeOf(
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
    throw fromSystem(error, { file: nameOrPath });
  });
  return parseRecipe(text, nameOrPath, roles);
}

/** @throws RECIPE_INVALID with the line at fault */
export function parseRecipe(text: string, file: string, roles: readonly RoleKind[]): Recipe {
  if (text.length > MAX_RECIPE_BYTES) throw invalid(file, null, `more than ${MAX_RECIPE_BYTES} bytes`);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [fault] = [...document.errors, ...document.warnings];
  if (fault !== undefined) throw invalid(file, lines.linePos(fault.pos[0]).line, fault.message);
  const lineOf = (path: readonly PropertyKey[]) => {
    const offset = offsetOf(document, path);
    return offset === undefined ? null : lines.linePos(offset).line;
  };

  const parsed = schema.safeParse(valueIn(document, file));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const path = issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0]!] : issue.path;
    throw invalid(file, lineOf(path), [path.join("."), issue.message].filter(Boolean).join(": "));
  }
  const { id, keep_ends, cast, keep, keep_layers, keep_mamba_before_attention } = parsed.data;
  for (const [key, patterns] of Object.entries({ cast, keep })) {
    for (const [i, pattern] of patterns.entries()) {
      if (roles.some(({ role }) => names(pattern, role))) continue;
      throw invalid(file, lineOf([key, i]), `${key}: ${pattern} names no role of this family`);
    }
  }
  return {
    id,
    keepEnds: keep_ends,
    cast,
    keep,
    keepLayers: keep_layers,
    keepMambaBeforeAttention: keep_mamba_before_attention,
  };
}

/** Whether a pattern (`mlp.up`, `mlp.*`, `*`) names a role. */
export function names(pattern: string, role: string): boolean {
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
export function casts(
  recipe: Recipe,
  role: string,
  layer: LayerAt | null,
  layers: readonly LayerAt[],
): boolean {
  const { keepEnds, cast, keep = [], keepLayers = [], keepMambaBeforeAttention = false } = recipe;
  const main = layers.filter(({ stack }) => stack === "main");
  const absent = keepLayers.find((index) => index >= main.length);
  if (absent !== undefined) {
    const message = `recipe ${recipe.id} keeps layer ${absent}; the model has layers 0 to ${main.length - 1}`;
    throw new IsologitError("RECIPE_INVALID", message);
  }
  const named = (patterns: readonly string[]) => patterns.some((pattern) => names(pattern, role));
  if (!named(cast) || named(keep)) return false;
  if (layer === null) return true;
  if (layer.stack === "mtp") return false;
  if (layer.index < keepEnds || layer.index >= main.length - keepEnds) return false;
  if (keepLayers.includes(layer.index)) return false;
  const feedsAttention = main.some(({ index, kind }) => index === layer.index + 1 && kind === "attention");
  return !(keepMambaBeforeAttention && layer.kind === "mamba" && feedsAttention);
}

/** The file's value; a recipe has no use for aliases, whose expansion a hostile file multiplies. */
function valueIn(document: Document, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 0 });
  } catch (cause) {
    throw new IsologitError("RECIPE_INVALID", "aliases are not supported", { file }, { cause });
  }
}

/** Where in the text a value lies, or the nearest thing that holds it. */
function offsetOf(document: Document, path: readonly PropertyKey[]): number | undefined {
  for (let length = path.length; length >= 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    if (length === 1 && isMap(document.contents)) {
      const pair = document.contents.items.find(({ key }) => String(key) === path[0]);
      if (isNode(pair?.key)) return pair.key.range?.[0];
    }
    if (isNode(node) && node.range) return node.range[0];
  }
  return undefined;
}

function invalid(file: string, line: number | null, found: string): IsologitError {
  return new IsologitError("RECIPE_INVALID", line === null ? found : `line ${line}: ${found}`, { file });
}
