/** Recipes: which roles a recast touches. `docs/recipes.md` describes the YAML file for its authors. */
import { readFile } from "node:fs/promises";
import type { Document } from "yaml";
import { BLOCK_TARGETS } from "../core/dtype.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import type { Layer, RoleSpec } from "../families/structure.ts";

/** The part of a role, and of a layer, that a recipe looks at. */
export type RoleKind = Pick<RoleSpec, "role" | "kind">;
export type LayerAt = Pick<Layer, "stack" | "index" | "kind" | "of">;

/** The types that a recipe may give to tensors of a GGUF. */
export const RECIPE_TYPES = [...BLOCK_TARGETS, "F16", "BF16", "F32"] as const;
/** A name of a tensor in GGUF. */
export const TENSOR_NAME = /^[\w.-]{1,63}$/;

/** Largest recipe file, in characters. A recipe of layers has about a dozen lines, one of tensors a name for each of some 500. */
const MAX_RECIPE_LENGTH = 256 * 1024;

/** Endings of a recipe file. */
export const RECIPE_FILE = /\.ya?ml$/;

/** What `keep_mamba_before_attention` keeps, as in the 30B release. */
const MAMBA_BEFORE_ATTENTION = { kind: "mamba", next: "attention" } as const;

/**
 * The recipe with this name, or the recipe in this file.
 *
 * @param nameOrPath name of a known recipe, or path of a `.yaml` file
 * @param known      recipes of the family
 * @param roles      roles of the family
 * @throws RECIPE_INVALID when the name is unknown or the file is wrong; names file and line
 * @throws NOT_FOUND      when the file does not exist
 */
export async function findRecipe(
  nameOrPath: string,
  known: readonly Recipe[],
  roles: readonly RoleKind[],
): Promise<Recipe> {
  const named = known.find(({ id }) => id === nameOrPath);
  if (named !== undefined) return named;
  if (!RECIPE_FILE.test(nameOrPath)) {
    const ids = known.map(({ id }) => id).join(", ");
    throw new IsologitError(
      "RECIPE_INVALID",
      `there is no recipe ${nameOrPath}, only ${ids}, or a .yaml file`,
    );
  }
  const text = await readFile(nameOrPath, "utf8").catch((error: unknown) => {
    throw systemError(error, { file: nameOrPath });
  });
  return await parseRecipe(text, nameOrPath, roles);
}

/** @throws RECIPE_INVALID; names the line */
export async function parseRecipe(text: string, file: string, roles: readonly RoleKind[]): Promise<Recipe> {
  if (text.length > MAX_RECIPE_LENGTH) throw invalid(file, null, `more than ${MAX_RECIPE_LENGTH} bytes`);
  // Loaded only for a recipe file: the YAML parser alone takes some 60 ms to load.
  const { isMap, isNode, LineCounter, parseDocument } = await import("yaml");
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [fault] = [...document.errors, ...document.warnings];
  if (fault !== undefined) throw invalid(file, lines.linePos(fault.pos[0]).line, fault.message);

  /** Line of the value at a path, or of the nearest value that contains it. */
  const lineOf = (path: readonly PropertyKey[]): number | null => {
    for (let length = path.length; length >= 0; length--) {
      const node = document.getIn(path.slice(0, length), true);
      if (length === 1 && isMap(document.contents)) {
        const pair = document.contents.items.find(({ key }) => String(key) === path[0]);
        if (isNode(pair?.key)) return pair.key.range ? lines.linePos(pair.key.range[0]).line : null;
      }
      if (isNode(node) && node.range) return lines.linePos(node.range[0]).line;
    }
    return null;
  };

  const parsed = (await recipeSchema()).safeParse(valueIn(document, file));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const path = issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0]!] : issue.path;
    throw invalid(file, lineOf(path), [path.join("."), issue.message].filter(Boolean).join(": "));
  }
  const { id, keep_ends, cast, keep, keep_layers, keep_mamba_before_attention, types } = parsed.data;
  const rules = [...cast, ...keep, ...keep_layers].length + keep_ends > 0 || keep_mamba_before_attention;
  if (types === undefined && cast.length === 0)
    throw invalid(file, lineOf(["cast"]), "cast: expected at least one role");
  if (types !== undefined && rules)
    throw invalid(file, lineOf(["types"]), "types: the other keys have no meaning beside it, except id");
  for (const [key, patterns] of Object.entries({ cast, keep })) {
    for (const [i, pattern] of patterns.entries()) {
      if (roles.some(({ role }) => recipeNamesRole(pattern, role))) continue;
      throw invalid(file, lineOf([key, i]), `${key}: ${pattern} names no role of this family`);
    }
  }
  return {
    id,
    keepEnds: keep_ends,
    cast,
    keep,
    keepLayers: keep_layers,
    keepBefore: keep_mamba_before_attention ? [MAMBA_BEFORE_ATTENTION] : [],
    ...(types !== undefined && { types }),
  };
}

/** A JSON Schema of recipe files, for editors. */
export async function recipeJsonSchema(): Promise<Readonly<Record<string, unknown>>> {
  const { z } = await import("zod");
  return {
    ...z.toJSONSchema(await recipeSchema(), { io: "input" }),
    title: "Recipe of isologit",
  };
}

/** The keys of a recipe file. */
async function recipeSchema() {
  const { z } = await import("zod");
  const pattern = z
    .string()
    .regex(/^(\*|\w+(\.\w+)*(\.\*)?)$/, "expected a role such as mlp.up, or a prefix.*");
  return z.strictObject({
    id: z
      .string()
      .regex(/^[\w.-]{1,64}$/, "expected up to 64 letters, digits, dots, dashes")
      .describe("name of the recipe"),
    keep_ends: z.int().min(0).default(0).describe("layers at each end of the main stack that are kept"),
    cast: z.array(pattern).default([]).describe("roles to cast: a role, prefix.*, or *"),
    keep: z.array(pattern).default([]).describe("roles to keep although cast names them"),
    keep_layers: z.array(z.int().min(0)).default([]).describe("layers of the main stack that are kept"),
    keep_mamba_before_attention: z
      .boolean()
      .default(false)
      .describe("keep Mamba layers directly before an attention layer"),
    types: z
      .partialRecord(
        z.enum(RECIPE_TYPES),
        z.array(z.string().regex(TENSOR_NAME, "expected a name of a tensor")),
      )
      .exactOptional()
      .describe("for GGUF, in place of cast: names of tensors by their type; the others become Q8_0"),
  });
}

/** The file's value. Aliases are refused: a hostile file multiplies its size with them. */
function valueIn(document: Document, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 0 });
  } catch (cause) {
    throw new IsologitError("RECIPE_INVALID", "aliases are not supported", { file }, { cause });
  }
}

function invalid(file: string, line: number | null, found: string): IsologitError {
  return new IsologitError("RECIPE_INVALID", line === null ? found : `line ${line}: ${found}`, { file });
}

/** Whether a pattern (`mlp.up`, `mlp.*`, `*`) names a role. */
function recipeNamesRole(pattern: string, role: string): boolean {
  return (
    pattern === "*" || pattern === role || (pattern.endsWith(".*") && role.startsWith(pattern.slice(0, -1)))
  );
}

/**
 * Why a recipe keeps this role in this layer; null if it casts it. Layers of multi-token prediction are never cast.
 *
 * @param layer  null for a role that a model has once
 * @param layers all layers of the model
 * @throws RECIPE_INVALID when the recipe keeps a layer that the model does not have
 */
export function keptReason(
  recipe: Recipe,
  role: string,
  layer: LayerAt | null,
  layers: readonly LayerAt[],
): string | null {
  const { id, keepEnds, cast, keep = [], keepLayers = [], keepBefore = [] } = recipe;
  const main = layers.filter(({ stack }) => stack === "main");
  const absent = keepLayers.find((index) => index >= main.length);
  if (absent !== undefined) {
    const message = `recipe ${id} keeps layer ${absent}; the model has layers 0 to ${main.length - 1}`;
    throw new IsologitError("RECIPE_INVALID", message);
  }
  const isNamedBy = (patterns: readonly string[]) =>
    patterns.some((pattern) => recipeNamesRole(pattern, role));
  if (!isNamedBy(cast)) return `recipe ${id} does not name it`;
  if (isNamedBy(keep)) return `recipe ${id} keeps it`;
  if (layer === null) return null;
  if (layer.stack === "mtp") return "recipes cast no prediction layer";
  const ends = keepEnds * layer.of; // attention and MLP of a dense model count as one
  if (layer.index < ends || layer.index >= main.length - ends)
    return `recipe ${id} keeps ${keepEnds} layers at each end`;
  if (keepLayers.includes(layer.index)) return `recipe ${id} keeps layer ${layer.index}`;
  const following = main.find(({ index }) => index === layer.index + 1)?.kind;
  const before = keepBefore.find(({ kind, next }) => kind === layer.kind && next === following);
  return before === undefined ? null : `recipe ${id} keeps ${before.kind} layers before ${before.next}`;
}
