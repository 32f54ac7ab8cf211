/** Rotary positions in the keys of a GGUF, and the tensor of factors with which llama.cpp slows frequencies down as Llama 3.1 does. */
import { frequencyFactors } from "../../../../kernels/rotary-table.ts";
import { IsologitError } from "../../../core/errors.ts";
import type { ConstantTensor, ObservedFacts } from "../../dialect.ts";
import type { Config, Settings } from "../../structure.ts";
import { type RotarySettings, rotarySpec, yarnMagnitude } from "../rotary.ts";
import type { GgufKeys } from "./keys.ts";

/** llama.cpp divides the frequency of each pair by its factor. */
const FACTORS = "rope_freqs.weight";

/** Settings of the scaling of Llama 3.1, which the factors do not give back: keys of our own hold them. */
const LLAMA3 = {
  ropeFactor: "isologit.rope.factor",
  ropeLowFactor: "isologit.rope.low_freq_factor",
  ropeHighFactor: "isologit.rope.high_freq_factor",
  ropeOriginalPositions: "isologit.rope.original_context_length",
} as const;

/** Tensors that llama.cpp wants beside the roles, because they follow from the settings. */
export function rotaryConstants(settings: Settings): readonly ConstantTensor[] {
  if (settings.ropeScaling !== "llama3") return [];
  const values = frequencyFactors(rotarySpec(settings));
  return [{ name: FACTORS, shape: [values.length], values }];
}

/** Rules for tensors that follow from settings. */
export const ROTARY_DROP = [
  { match: /^rope_freqs\.weight$/, why: "factors of rotary frequencies, which follow from the settings" },
] as const;

/**
 * @param headDim elements of a head
 * @throws UNSUPPORTED for another kind of scaling; CONFIG_INVALID where the parameters of Llama 3.1 are needed and nothing
 *   gives them
 */
export function readGgufRotary(
  keys: GgufKeys,
  config: Config,
  headDim: number,
  { ignored = [], like }: ObservedFacts,
): RotarySettings {
  const shared = {
    rotary: keys.count("rope.dimension_count", headDim),
    ropeTheta: keys.number("rope.freq_base", 10_000),
  };
  if (ignored.includes(FACTORS)) return { ...shared, ...readLlama3(config, like) };
  const kind = keys.text("rope.scaling.type", "none");
  switch (kind) {
    case "none":
      return { ...shared, ropeScaling: "none" };
    case "linear":
      return { ...shared, ropeScaling: "linear", ropeFactor: keys.number("rope.scaling.factor") };
    case "yarn": {
      const ropeFactor = keys.number("rope.scaling.factor");
      return {
        ...{ ...shared, ropeScaling: "yarn", ropeFactor },
        ropeOriginalPositions: keys.count("rope.scaling.original_context_length"),
        ...{ ropeBetaFast: 32, ropeBetaSlow: 1, ropeTruncate: true },
        ropeMagnitude: yarnMagnitude({}, ropeFactor),
      };
    }
    default:
      throw new IsologitError(
        "UNSUPPORTED",
        `rope.scaling.type is ${kind}: it changes the angles of positions`,
      );
  }
}

function readLlama3(
  config: Config,
  like: Settings | undefined,
): Pick<RotarySettings, "ropeScaling"> & Settings {
  const numbers = Object.entries(LLAMA3).map(([setting, key]) => [setting, config[key]] as const);
  if (numbers.every(([, value]) => typeof value === "number"))
    return { ropeScaling: "llama3", ...(Object.fromEntries(numbers) as Settings) };
  if (like?.ropeScaling === "llama3") {
    const known = Object.keys(LLAMA3).map((setting) => [setting, like[setting]!] as const);
    return { ropeScaling: "llama3", ...Object.fromEntries(known) };
  }
  const message = `${FACTORS} slows rotary frequencies down as Llama 3.1 does, and the file does not have the four numbers of it`;
  const next = "give `like` a checkpoint of the same model, such as its Hugging Face folder";
  throw new IsologitError("CONFIG_INVALID", message, { tensor: FACTORS }, { next });
}

/** Keys below the architecture, and keys of our own; none for a model without positions. */
export function rotaryKeys(settings: Settings): { readonly keys: Config; readonly own: Config } {
  const { rotary, ropeTheta, ropeScaling, ropeFactor, ropeOriginalPositions } = settings;
  if (rotary === undefined) return { keys: {}, own: {} };
  const isScaled = ropeScaling === "linear" || ropeScaling === "yarn";
  return {
    keys: {
      "rope.dimension_count": rotary,
      "rope.freq_base": ropeTheta,
      ...(isScaled && { "rope.scaling.type": ropeScaling, "rope.scaling.factor": ropeFactor }),
      ...(ropeScaling === "yarn" && { "rope.scaling.original_context_length": ropeOriginalPositions }),
    },
    own:
      ropeScaling === "llama3"
        ? Object.fromEntries(Object.entries(LLAMA3).map(([setting, key]) => [key, settings[setting]]))
        : {},
  };
}

/** Why llama.cpp would turn heads by other angles; null if it would not. */
export function otherAngles(settings: Settings): string | null {
  if (settings.ropeScaling !== "yarn") return null;
  const { ropeBetaFast, ropeBetaSlow, ropeTruncate, ropeMagnitude, ropeFactor } = settings;
  const isUsual =
    ropeBetaFast === 32 &&
    ropeBetaSlow === 1 &&
    ropeTruncate === true &&
    ropeMagnitude === yarnMagnitude({}, Number(ropeFactor));
  return isUsual
    ? null
    : "its files have no keys for these parameters of YaRN (beta_fast, beta_slow, attention_factor, truncate)";
}
