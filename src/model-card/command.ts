/** The command that makes a certified checkpoint again, from the options in its certificate. */
import { formats } from "../../formats/index.ts";
import type { Certificate } from "../certificate/certificate.ts";
import { type Conversion, LOCAL_LIKE, type RecipeFile } from "../convert/conversion-record.ts";
import { CALIBRATION_FILE } from "../quantization/calibration.ts";

/** Lines for a shell. `placeholders`: words in the lines for files that only the author has. */
export interface CardCommand {
  readonly lines: readonly string[];
  readonly placeholders: readonly string[];
}

/** Placeholder for a source without an address in the certificate. */
const SOURCE = "SRC";
const RECIPE = "recipe.yaml";
/** A certificate comes from others, so no command names the code that it would load. */
const PLUGIN = "PLUGIN";

/**
 * @param base repository of the source that the user gives; used for a local source of the format hf
 * @returns undefined if the certificate does not have the options, as in older versions
 */
export function commandOf(certificate: Certificate, base: string | undefined): CardCommand | undefined {
  const { source, destination, conversion, plugins = [] } = certificate;
  const isRecast = Object.keys(certificate.recast).length > 0;
  if (isRecast && conversion === undefined) return undefined;
  const claimed = base !== undefined && source.format === "hf" ? `hf://${base}` : SOURCE;
  const from = source.address ?? claimed;
  const ending = formats.find(({ id }) => id === destination.format)?.writes?.endings[0] ?? "";
  const command = ["npx isologit convert", from, `./out${ending}`, "--to", destination.format];
  const modules = plugins.flatMap(() => ["--plugin", PLUGIN]);
  const options = conversion === undefined ? [] : flagsOf(conversion);
  const recipe = typeof conversion?.recipe === "object" ? recipeLines(conversion.recipe) : [];
  return {
    lines: [...recipe, [...command, ...modules, ...options].join(" ")],
    placeholders: [
      ...[from, conversion?.like, conversion?.calibrate?.prompt].filter(
        (word) => word === SOURCE || word === LOCAL_LIKE || word === CALIBRATION_FILE,
      ),
      ...(plugins.length > 0 ? [PLUGIN] : []),
    ],
  };
}

/** Flags of the command line, in the order of the command. This room may not import `cli`; a test compares both tables. */
const FLAGS: Readonly<Record<keyof Conversion, string>> = {
  dtype: "--dtype",
  recipe: "--recipe",
  keepEnds: "--keep-ends",
  quantDialect: "--quant-dialect",
  quantScales: "--quant-scales",
  fnuz: "--fnuz",
  fuseScales: "--fuse-scales",
  calibrate: "--calibrate",
  calibrateRule: "--calibrate-rule",
  kvCache: "--kv-cache",
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
    ...(conversion.calibrate !== undefined && { calibrate: promptOf(conversion.calibrate) }),
    ...(conversion.maxShardBytes !== undefined && { maxShardBytes: `${conversion.maxShardBytes}B` }),
  };
  return Object.entries(FLAGS).flatMap(([name, flag]) => {
    const value = values[name];
    return value === undefined ? [] : value === true ? [flag] : [flag, String(value)];
  });
}

/** The value of the flag: a placeholder, or true for the bundled prompt. */
const promptOf = ({ prompt }: NonNullable<Conversion["calibrate"]>): string | true =>
  prompt === CALIBRATION_FILE ? prompt : true;

/** Recipe as YAML. JSON values are YAML too, and the shell does not change text in a quoted here-document. */
const recipeLines = (recipe: RecipeFile): readonly string[] => [
  `cat > ${RECIPE} <<'EOF'`,
  ...Object.entries(recipe).map(([key, value]) => `${key}: ${JSON.stringify(value)}`),
  "EOF",
];
