/** A recipe as a YAML file. `docs/recipes.md` is for its authors. */
import { type Document, isMap, isNode, LineCounter, parseDocument } from "yaml";
import { z } from "zod";
import { IsologitError } from "../core/errors.ts";
import type { Recipe } from "../families/family.ts";
import { type RoleKind, recipeNamesRole } from "./recipe.ts";

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

/** What `keep_mamba_before_attention` keeps, as in the 30B release. */
const MAMBA_BEFORE_ATTENTION = { kind: "mamba", next: "attention" } as const;

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
  };
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
