/** The command that makes a certified checkpoint again, from what its certificate says of the conversion. */
import { formats } from "../../formats/index.ts";
import type { Certificate } from "../certificate/certificate.ts";
import { type Conversion, LOCAL_LIKE, type RecipeFile } from "../convert/conversion-record.ts";

/** Lines for a shell; `placeholders` are words in them that stand for what only its maker has. */
export interface CardCommand {
  readonly lines: readonly string[];
  readonly placeholders: readonly string[];
}

/** Stands for a source that the certificate gives no address of. */
const SOURCE = "SRC";
const RECIPE = "recipe.yaml";

/**
 * @param base what was converted, as whoever uploads says: the source, where that lay on a disk in the same format
 * @returns undefined where the certificate does not say which options were given: older ones do not
 */
export function commandOf(certificate: Certificate, base: string | undefined): CardCommand | undefined {
  const { source, destination, conversion } = certificate;
  const isRecast = Object.keys(certificate.recast).length > 0;
  if (isRecast && conversion === undefined) return undefined;
  const claimed = base !== undefined && source.format === "hf" ? `hf://${base}` : SOURCE;
  const from = source.address ?? claimed;
  const ending = formats.find(({ id }) => id === destination.format)?.writes?.endings[0] ?? "";
  const command = ["npx isologit convert", from, `./out${ending}`, "--to", destination.format];
  const options = conversion === undefined ? [] : flagsOf(conversion);
  const recipe = typeof conversion?.recipe === "object" ? recipeLines(conversion.recipe) : [];
  return {
    lines: [...recipe, [...command, ...options].join(" ")],
    placeholders: [from, conversion?.like].filter((word) => word === SOURCE || word === LOCAL_LIKE),
  };
}

/** As the command line spells them, in the order of the command. */
const FLAGS: Readonly<Record<keyof Conversion, string>> = {
  dtype: "--dtype",
  recipe: "--recipe",
  keepEnds: "--keep-ends",
  maxShardBytes: "--max-shard-size",
  alignment: "--align",
  tp: "--tp",
  pp: "--pp",
  vocabSize: "--vocab-size",
  like: "--like",
  iteration: "--iteration",
  allowOverflow: "--allow-overflow",
  keepExtra: "--keep-extra",
};

function flagsOf(conversion: Conversion): readonly string[] {
  const values: Readonly<Record<string, unknown>> = {
    ...conversion,
    ...(typeof conversion.recipe === "object" && { recipe: RECIPE }),
  };
  return Object.entries(FLAGS).flatMap(([name, flag]) => {
    const value = values[name];
    return value === undefined ? [] : value === true ? [flag] : [flag, String(value)];
  });
}

/** JSON values are YAML too, and hold nothing that a shell would take for itself inside a quoted document. */
const recipeLines = (recipe: RecipeFile): readonly string[] => [
  `cat > ${RECIPE} <<'EOF'`,
  ...Object.entries(recipe).map(([key, value]) => `${key}: ${JSON.stringify(value)}`),
  "EOF",
];
