/** Rotary positions: what configs of Hugging Face say of them, as settings, and the table of angles that settings describe. */
import type { RotarySpec } from "../../../kernels/rotary-table.ts";
import { IsologitError } from "../../core/errors.ts";
import { isJsonObject } from "../../core/json.ts";
import type { Config, Settings } from "../structure.ts";
import { invalidKeyError } from "./config-json.ts";
import { unsupportedKeyError } from "./config-keys.ts";

/** Settings of rotary positions. A setting that the kind of scaling does not use is absent. */
export interface RotarySettings extends Settings {
  /** elements of each head that are rotated */
  readonly rotary: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RotarySpec["scaling"]["kind"];
}

/** Keys of config.json that this file reads. */
export const ROTARY_KEYS = [
  ...["rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"],
  "original_max_position_embeddings",
] as const;

const AT = { file: "config.json" };

/** Numbers of each kind of scaling: setting, key, and the default of Transformers; without a default the key is needed. */
const NUMBERS = {
  none: [],
  linear: [["ropeFactor", "factor"]],
  llama3: [
    ["ropeFactor", "factor"],
    ["ropeLowFactor", "low_freq_factor"],
    ["ropeHighFactor", "high_freq_factor"],
    ["ropeOriginalPositions", "original_max_position_embeddings"],
  ],
  yarn: [
    ["ropeFactor", "factor"],
    ["ropeOriginalPositions", "original_max_position_embeddings"],
    ["ropeBetaFast", "beta_fast", 32],
    ["ropeBetaSlow", "beta_slow", 1],
  ],
} as const satisfies Readonly<Record<string, readonly (readonly [string, string, number?])[]>>;

/**
 * The settings of rotary positions in a config.json: of one map `rope_parameters` (Transformers 5), or of `rope_theta` and
 * `rope_scaling`.
 *
 * @param headDim elements of a head
 * @param usual   defaults of the model's class: `partial` is the share of each head that is rotated
 * @throws CONFIG_INVALID for keys that disagree or lack a number; UNSUPPORTED for another kind of scaling
 * @see transformers/modeling_rope_utils.py
 */
export function readRotary(
  config: Config,
  headDim: number,
  usual: { readonly theta: number; readonly partial: number },
): RotarySettings {
  const map = scalingMap(config);
  const type = String(map.rope_type ?? map.type ?? "default");
  const kind = type === "default" ? "none" : type;
  if (!Object.hasOwn(NUMBERS, kind))
    throw unsupportedKeyError(
      `rope_type is ${JSON.stringify(type)}: it changes the angles of positions`,
      "rope_type",
      "default",
      AT,
    );
  const theta = agreed("rope_theta", map.rope_theta, config.rope_theta) ?? usual.theta;
  const partial =
    agreed("partial_rotary_factor", map.partial_rotary_factor, config.partial_rotary_factor) ?? usual.partial;
  const rotary = Math.floor(headDim * partial);
  if (!(theta > 0) || rotary <= 0 || rotary % 2 !== 0 || rotary > headDim)
    invalidKeyError(
      `rope_theta ${theta} and partial_rotary_factor ${partial} rotate no even number of the ${headDim} elements of a head`,
    );
  const settings: Record<string, Settings[string]> = { rotary, ropeTheta: theta, ropeScaling: kind };
  for (const [setting, key, absent] of NUMBERS[kind as keyof typeof NUMBERS]) {
    const value = map[key] ?? absent ?? derived(key, config);
    if (typeof value !== "number" || !(value > 0))
      invalidKeyError(
        `${key} of the ${kind} positions is ${JSON.stringify(value ?? null)}; expected a number above 0`,
      );
    settings[setting] = value;
  }
  if (kind === "yarn") {
    settings.ropeTruncate = map.truncate !== false;
    settings.ropeMagnitude = yarnMagnitude(map, Number(settings.ropeFactor));
  }
  return settings as RotarySettings;
}

/** `rope_parameters` if it is present: Transformers 5 then reads no other key. */
function scalingMap({ rope_parameters: parameters, rope_scaling: scaling }: Config): Config {
  const map = parameters ?? scaling ?? {};
  if (!isJsonObject(map)) return invalidKeyError("rope_parameters is not a map");
  if (Object.values(map).some(isJsonObject))
    throw new IsologitError(
      "UNSUPPORTED",
      "rope_parameters has values for each kind of layer: only one for all layers is computed here",
      AT,
    );
  return map;
}

/** A number that two keys may hold. @throws CONFIG_INVALID if they differ */
function agreed(key: string, inMap: unknown, outside: unknown): number | undefined {
  for (const value of [inMap, outside])
    if (value !== undefined && value !== null && typeof value !== "number")
      invalidKeyError(`${key} is ${JSON.stringify(value)}; expected a number`);
  const [first, second] = [inMap ?? undefined, outside ?? undefined] as (number | undefined)[];
  if (first !== undefined && second !== undefined && first !== second)
    invalidKeyError(
      `${key} is ${second}, but ${first} in rope_parameters: engines differ in which they read`,
    );
  return first ?? second;
}

/** Transformers takes the longest prompt for the original one, and their quotient for yarn's factor. */
function derived(key: string, config: Config): unknown {
  const { max_position_embeddings: most, original_max_position_embeddings: original } = config;
  if (key === "original_max_position_embeddings") return original ?? most;
  return key === "factor" && typeof original === "number" ? Number(most) / original : undefined;
}

/** The number that multiplies the cosines and sines. */
export function yarnMagnitude(
  { attention_factor: given, mscale, mscale_all_dim: all }: Config,
  factor: number,
): number {
  if (typeof given === "number") return given;
  const of = (scale: number) => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1);
  return mscale && all ? of(Number(mscale)) / of(Number(all)) : of(1);
}

/** The table of angles that settings describe. */
export function rotarySpec(settings: Settings): RotarySpec {
  const of = (name: string) => Number(settings[name]);
  const shared = { rotary: of("rotary"), theta: of("ropeTheta") };
  const factor = of("ropeFactor");
  const originalPositions = of("ropeOriginalPositions");
  switch (settings.ropeScaling) {
    case "linear":
      return { ...shared, scaling: { kind: "linear", factor } };
    case "llama3": {
      const [lowFactor, highFactor] = [of("ropeLowFactor"), of("ropeHighFactor")];
      return { ...shared, scaling: { kind: "llama3", factor, lowFactor, highFactor, originalPositions } };
    }
    case "yarn": {
      const [betaFast, betaSlow, magnitude] = [of("ropeBetaFast"), of("ropeBetaSlow"), of("ropeMagnitude")];
      const truncate = settings.ropeTruncate === true;
      return {
        ...shared,
        scaling: { kind: "yarn", factor, originalPositions, betaFast, betaSlow, truncate, magnitude },
      };
    }
    default:
      return { ...shared, scaling: { kind: "none" } };
  }
}

/** The keys of config.json for these settings, as published files spell them; none for a model without positions. */
export function rotaryConfig(settings: Settings): Config {
  if (settings.rotary === undefined) return {};
  const kind = settings.ropeScaling as keyof typeof NUMBERS;
  const numbers = NUMBERS[kind].map(([setting, key]) => [key, settings[setting]] as const);
  const scaling =
    kind === "none"
      ? null
      : {
          rope_type: kind,
          ...Object.fromEntries(numbers),
          ...(kind === "yarn" && {
            attention_factor: settings.ropeMagnitude,
            truncate: settings.ropeTruncate,
          }),
        };
  return { rope_theta: settings.ropeTheta, rope_scaling: scaling };
}
