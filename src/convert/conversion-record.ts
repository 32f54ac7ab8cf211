/**
 * The options of a conversion that decide its bytes, as a certificate records them: with the source, anybody can make the
 * same files again. A certificate is untrusted input, and its options become a command that people run, so only names and
 * numbers are accepted.
 */
import { z } from "zod";
import type { RunOptions } from "../checkpoint/options.ts";
import { FNUZ_HANDLINGS, RECAST_TARGETS } from "../core/dtype.ts";
import type { Recipe } from "../families/family.ts";
import { isHubAddress } from "../io/address.ts";
import { WEIGHT_SCALES } from "../plugins/quantization-dialect.ts";
import { CALIBRATION_FILE, CALIBRATION_RULES, type Calibration } from "../quantization/calibration.ts";
import { RECIPE_TYPES, TENSOR_NAME } from "../quantization/recipe.ts";
import type { PlanOptions } from "./options.ts";

const count = z.int().nonnegative();
const word = z.string().regex(/^[\w.-]{1,64}$/);
const pattern = z.string().regex(/^(\*|\w+(\.\w+)*(\.\*)?)$/);
/** `hf://owner/name[@revision][/folder]`, in characters without a meaning for a shell. */
export const HubPlace = z.string().regex(/^hf:\/\/[\w.-]+\/[\w.-]+(@[\w./%-]+)?(\/[\w./-]*)?$/);
/** In place of a path on the machine that converted. */
export const LOCAL_LIKE = "LIKE";

/** The content of a recipe file, under the keys of such a file. */
export interface RecipeFile {
  readonly id: string;
  readonly keep_ends: number;
  readonly cast: readonly string[];
  readonly keep: readonly string[];
  readonly keep_layers: readonly number[];
  readonly keep_mamba_before_attention: boolean;
  /** absent unless the recipe names the types of tensors */
  readonly types?: Readonly<Record<string, readonly string[]>>;
}

const RecipeFile = z.strictObject({
  id: word,
  keep_ends: count,
  cast: z.array(pattern).readonly(),
  keep: z.array(pattern).readonly(),
  keep_layers: z.array(count).readonly(),
  keep_mamba_before_attention: z.boolean(),
  types: z
    .partialRecord(z.enum(RECIPE_TYPES), z.array(z.string().regex(TENSOR_NAME)).readonly())
    .readonly()
    .exactOptional(),
}) satisfies z.ZodType<RecipeFile>;

/** The prompt of a calibration; a file of the user is recorded by its content only. */
export const CalibrationRecord = z.strictObject({
  prompt: z.enum(["bundled", CALIBRATION_FILE]),
  prompts: count.exactOptional(),
  tokens: count,
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

export const Conversion = z.strictObject({
  dtype: z.enum(RECAST_TARGETS).exclude(["keep"]).exactOptional(),
  recipe: z.union([word, RecipeFile]).exactOptional(),
  keepEnds: count.exactOptional(),
  quantDialect: word.exactOptional(),
  quantScales: z.enum(WEIGHT_SCALES).exactOptional(),
  fnuz: z.enum(FNUZ_HANDLINGS).exactOptional(),
  fuseScales: z.literal(true).exactOptional(),
  calibrate: CalibrationRecord.exactOptional(),
  calibrateRule: z.enum(CALIBRATION_RULES).exactOptional(),
  kvCache: z.literal("fp8").exactOptional(),
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
/** The certificate names the format elsewhere, options of a run decide no byte, and a found recipe is recorded as a file. */
type DecidingOption = Exclude<keyof PlanOptions, keyof RunOptions | "to" | "bits">;

/**
 * The options apart from the format; undefined if there are none.
 *
 * @param recipe the recipe that the options led to
 * @param named  the recipes that have a name; any other recipe came from a file
 */
export function conversionOf(
  options: PlanOptions,
  recipe: Recipe | null,
  named: readonly Recipe[],
  calibration: Calibration | null,
): Conversion | undefined {
  const { dtype, keepEnds, quantDialect, quantScales, calibrateRule, kvCache } = options;
  const { fnuz, fuseScales, allowOverflow, keepExtra, like } = options;
  const { maxShardBytes, alignment, tp, pp, vocabSize, iteration } = options;
  const isFile = options.recipe !== undefined && !named.some(({ id }) => id === options.recipe);
  const file = isFile && recipe !== null ? recipeFileOf(recipe) : undefined;
  const asked = {
    dtype: dtype === "keep" ? undefined : dtype,
    recipe: file ?? options.recipe,
    keepEnds: file === undefined ? keepEnds : undefined,
    ...{ quantDialect, quantScales, calibrate: calibration?.record, calibrateRule, kvCache, fnuz },
    fuseScales: fuseScales || undefined,
    allowOverflow: allowOverflow || undefined,
    keepExtra: keepExtra || undefined,
    like: like === undefined ? undefined : HubPlace.safeParse(like).success ? like : LOCAL_LIKE,
    ...{ maxShardBytes, alignment, tp, pp, vocabSize, iteration },
  } satisfies Readonly<Record<DecidingOption, unknown>>;
  const given = Object.entries(asked).filter(([, value]) => value !== undefined);
  return given.length === 0 ? undefined : Conversion.parse(Object.fromEntries(given));
}

/** The recipe as a file; `keep_ends` is the number that was used, because the option takes precedence over the file. */
export const recipeFileOf = ({
  id,
  keepEnds,
  cast,
  keep,
  keepLayers,
  keepBefore,
  types,
}: Recipe): RecipeFile => ({
  id,
  keep_ends: keepEnds,
  cast,
  keep: keep ?? [],
  keep_layers: keepLayers ?? [],
  keep_mamba_before_attention: keepBefore !== undefined && keepBefore.length > 0,
  ...(types !== undefined && { types }),
});

/** Address on the Hub; undefined for a local path, because a certificate contains no local paths. */
export const hubPlaceOf = (url: string): string | undefined => {
  const { data } = HubPlace.safeParse(isHubAddress(url) ? url : undefined);
  return data;
};
