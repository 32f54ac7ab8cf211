/** Rotary positions in the keys of a GGUF, and the tensor of factors with which llama.cpp slows frequencies down as Llama 3.1 does. */
import { frequencyFactors } from "../../../../kernels/rotary-table.ts";
import { IsologitError } from "../../../core/errors.ts";
import type { ConstantTensor, ObservedFacts } from "../../dialect.ts";
import type { Config, Settings } from "../../structure.ts";
import { type RotarySettings, rotarySpec, yarnMagnitude } from "../rotary.ts";
import type { GgufKeys } from "./keys.ts";

/** llama.cpp divides the frequency of each pair by its factor. */
const FACTORS = "rope_freqs.weight";

/** Settings of the scaling of Llama 3.1. The factors give back only the usual ones, so keys of our own hold them. */
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
 * @throws UNSUPPORTED for another kind of scaling; CONFIG_INVALID where the numbers of Llama 3.1's scaling are needed and nothing
 *   gives them, or where the factors in the file are not those that the numbers give
 */
export function readGgufRotary(
  keys: GgufKeys,
  config: Config,
  headDim: number,
  { ignored = [], constants, like }: ObservedFacts,
): RotarySettings {
  const shared = {
    rotary: keys.count("rope.dimension_count", headDim),
    ropeTheta: keys.number("rope.freq_base", 10_000),
  };
  if (ignored.includes(FACTORS))
    return { ...shared, ...readLlama3(config, like, shared, constants?.get(FACTORS)) };
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

type Llama3Settings = Pick<RotarySettings, "ropeScaling"> & Settings;

/** @param stored the factors of the file; undefined for a file that is not written yet */
function readLlama3(
  config: Config,
  like: Settings | undefined,
  angles: Pick<RotarySettings, "rotary" | "ropeTheta">,
  stored: Float32Array | undefined,
): Llama3Settings {
  const makes = (numbers: Settings, factors: Float32Array) =>
    isNear(factors, frequencyFactors(rotarySpec({ ...angles, ...numbers })));
  const given =
    fromOwnKeys(config) ?? (like?.ropeScaling === "llama3" ? fromOwnKeys(ownKeys(like)) : undefined);
  const numbers = given ?? (stored && usualNumbers(stored).find((usual) => makes(usual, stored)));
  if (numbers === undefined) {
    const message = `${FACTORS} slows rotary frequencies down as Llama 3.1 does, and its four numbers are neither the usual ones nor in the file`;
    const next = "give `like` a checkpoint of the same model, such as its Hugging Face folder";
    throw new IsologitError("CONFIG_INVALID", message, { tensor: FACTORS }, { next });
  }
  if (stored === undefined || makes(numbers, stored)) return numbers;
  const { ropeFactor, ropeOriginalPositions } = numbers;
  const message = `it holds other factors than the numbers of Llama 3.1's scaling give (factor ${ropeFactor}, ${ropeOriginalPositions} positions)`;
  throw new IsologitError("CONFIG_INVALID", message, { tensor: FACTORS });
}

/** The numbers of all published models but the factor, which is the largest of the stored ones, and the positions. */
function usualNumbers(stored: Float32Array): readonly Llama3Settings[] {
  const ropeFactor = stored.reduce((most, factor) => Math.max(most, factor), 0);
  return [8192, 16_384, 32_768, 4096, 2048].map((ropeOriginalPositions) => ({
    ...{ ropeScaling: "llama3", ropeFactor },
    ...{ ropeLowFactor: 1, ropeHighFactor: 4, ropeOriginalPositions },
  }));
}

/** The converter of llama.cpp computes the same formula in another order, and rounds to F32 once. */
const isNear = (stored: Float32Array, computed: Float32Array): boolean =>
  stored.length === computed.length &&
  stored.every((factor, i) => Math.abs(factor - computed[i]!) <= 2 ** -22 * computed[i]!);

function fromOwnKeys(config: Config): Llama3Settings | undefined {
  const numbers = Object.entries(LLAMA3).map(([setting, key]) => [setting, config[key]] as const);
  if (!numbers.every(([, value]) => typeof value === "number")) return undefined;
  return { ropeScaling: "llama3", ...(Object.fromEntries(numbers) as Settings) };
}

const ownKeys = (settings: Settings): Config =>
  Object.fromEntries(Object.entries(LLAMA3).map(([setting, key]) => [key, settings[setting]]));

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
    own: ropeScaling === "llama3" ? ownKeys(settings) : {},
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
