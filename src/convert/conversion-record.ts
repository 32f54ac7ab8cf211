/**
 * The options of a conversion that decide its bytes, as a certificate holds them: who has the source can make the same
 * files again. A certificate is text of others, and its options become a command that people run: nothing but the names
 * and numbers of flags passes.
 */
import { z } from "zod";
import type { RunOptions } from "../checkpoint/options.ts";
import { RECAST_KINDS } from "../core/dtype.ts";
import type { Recipe } from "../families/family.ts";
import { isHubAddress } from "../io/address.ts";
import type { PlanOptions } from "./options.ts";

const count = z.int().nonnegative();
const word = z.string().regex(/^[\w.-]{1,64}$/);
const pattern = z.string().regex(/^(\*|\w+(\.\w+)*(\.\*)?)$/);
/** `hf://owner/name[@revision][/folder]` of characters that mean nothing to a shell. */
export const HubPlace = z.string().regex(/^hf:\/\/[\w.-]+\/[\w.-]+(@[\w./%-]+)?(\/[\w./-]*)?$/);
/** Stands for a path on the machine that converted. */
export const LOCAL_LIKE = "LIKE";

/** The content of a recipe file, in the keys of one. */
const RecipeFile = z.strictObject({
  id: word,
  keep_ends: count,
  cast: z.array(pattern).readonly(),
  keep: z.array(pattern).readonly(),
  keep_layers: z.array(count).readonly(),
  keep_mamba_before_attention: z.boolean(),
});
export type RecipeFile = z.infer<typeof RecipeFile>;

export const Conversion = z.strictObject({
  dtype: z.enum(RECAST_KINDS).exactOptional(),
  recipe: z.union([word, RecipeFile]).exactOptional(),
  keepEnds: count.exactOptional(),
  allowOverflow: z.literal(true).exactOptional(),
  keepExtra: z.literal(true).exactOptional(),
  maxShardBytes: count.exactOptional(),
  alignment: count.exactOptional(),
  tp: count.exactOptional(),
  pp: count.exactOptional(),
  vocabSize: count.exactOptional(),
  like: z.union([z.literal(LOCAL_LIKE), HubPlace]).exactOptional(),
  iteration: count.exactOptional(),
});
export type Conversion = z.infer<typeof Conversion>;
/** The format stands in the certificate already, and what a run takes decides no byte. */
type Deciding = Exclude<keyof PlanOptions, keyof RunOptions | "to">;

/**
 * What was asked beside the format; undefined where nothing was.
 *
 * @param recipe what the options' recipe turned out to be
 * @param named  the recipes that have a name: any other came from a file
 */
export function conversionOf(
  options: PlanOptions,
  recipe: Recipe | null,
  named: readonly Recipe[],
): Conversion | undefined {
  const { dtype, keepEnds, allowOverflow, keepExtra, like } = options;
  const { maxShardBytes, alignment, tp, pp, vocabSize, iteration } = options;
  const isFile = options.recipe !== undefined && !named.some(({ id }) => id === options.recipe);
  const file = isFile && recipe !== null ? recipeFileOf(recipe) : undefined;
  const asked = {
    dtype: dtype === "keep" ? undefined : dtype,
    recipe: file ?? options.recipe,
    keepEnds: file === undefined ? keepEnds : undefined,
    allowOverflow: allowOverflow || undefined,
    keepExtra: keepExtra || undefined,
    like: like === undefined ? undefined : HubPlace.safeParse(like).success ? like : LOCAL_LIKE,
    ...{ maxShardBytes, alignment, tp, pp, vocabSize, iteration },
  } satisfies Readonly<Record<Deciding, unknown>>;
  const given = Object.entries(asked).filter(([, value]) => value !== undefined);
  return given.length === 0 ? undefined : Conversion.parse(Object.fromEntries(given));
}

/** With the ends that were kept in the end: `--keep-ends` wins over the file. */
const recipeFileOf = ({ id, keepEnds, cast, keep, keepLayers, keepBefore }: Recipe): RecipeFile => ({
  id,
  keep_ends: keepEnds,
  cast,
  keep: keep ?? [],
  keep_layers: keepLayers ?? [],
  keep_mamba_before_attention: keepBefore !== undefined && keepBefore.length > 0,
});

/** Where a checkpoint was read; undefined on a machine's own disk, whose paths are in no certificate. */
export const hubPlaceOf = (url: string): string | undefined => {
  const { data } = HubPlace.safeParse(isHubAddress(url) ? url : undefined);
  return data;
};
