/** Rotary positions in records of Megatron's GPTModel. */
import type { Config, Settings } from "../../structure.ts";
import type { Software } from "../megatron/software.ts";
import { type RotarySettings, yarnMagnitude } from "../rotary.ts";
import { invalidRecordError, notInMegatron } from "./errors.ts";
import type { GptRecord } from "./record.ts";

/** The numbers that Megatron-LM and Megatron-Bridge fix for the scaling of Llama 3.1; a record names only the factor. */
const LLAMA3 = { ropeLowFactor: 1, ropeHighFactor: 4, ropeOriginalPositions: 8192 } as const;

/** @throws CONFIG_INVALID where a number is missing */
export function readGptRotary(record: GptRecord, headDim: number): RotarySettings {
  const rotary = Math.floor(headDim * (record.number("rotary_percent", "rotary_percentage") ?? 1));
  if (rotary % 2 !== 0 || rotary === 0)
    throw invalidRecordError(
      `rotary_percent rotates ${rotary} of the ${headDim} elements of a head, not an even number`,
    );
  const shared = { rotary, ropeTheta: record.number("rotary_base") ?? 10_000 };
  if (record.value("position_embedding_type") === "yarn") return { ...shared, ...readYarn(record) };
  const linear = record.number("seq_len_interpolation_factor", "rotary_seq_len_interpolation_factor");
  if (linear !== undefined && linear !== 1) return { ...shared, ropeScaling: "linear", ropeFactor: linear };
  if (record.flag("use_rope_scaling", "rope_scaling"))
    return {
      ...shared,
      ropeScaling: "llama3",
      ropeFactor: record.number("rope_scaling_factor") ?? 8,
      ...LLAMA3,
    };
  const isScaled = record.flag("scale_positional_embedding") || record.value("old_context_len") !== undefined;
  if (!isScaled) return { ...shared, ropeScaling: "none" };
  return {
    ...shared,
    ropeScaling: "llama3",
    ropeFactor: record.number("scale_factor") ?? 8,
    ropeLowFactor: record.number("low_freq_factor") ?? LLAMA3.ropeLowFactor,
    ropeHighFactor: record.number("high_freq_factor") ?? LLAMA3.ropeHighFactor,
    ropeOriginalPositions: record.number("old_context_len") ?? LLAMA3.ropeOriginalPositions,
  };
}

function readYarn(record: GptRecord): Pick<RotarySettings, "ropeScaling"> & Settings {
  const ropeFactor = record.need("yarn_rotary_scaling_factor", "rotary_scaling_factor");
  const scales = {
    mscale: record.value("yarn_mscale", "mscale"),
    mscale_all_dim: record.value("yarn_mscale_all_dim", "mscale_all_dim"),
  };
  return {
    ropeScaling: "yarn",
    ropeFactor,
    ropeOriginalPositions: record.need("yarn_original_max_position_embeddings"),
    ropeBetaFast: record.number("yarn_beta_fast") ?? 32,
    ropeBetaSlow: record.number("yarn_beta_slow") ?? 1,
    ropeTruncate: record.value("yarn_correction_range_round_to_int") !== false,
    ropeMagnitude: yarnMagnitude(scales, ropeFactor),
  };
}

/**
 * The keys of a record for these settings.
 *
 * @param headDim elements of a head
 * @throws PLAN_IMPOSSIBLE for positions that the software cannot compute
 */
export function gptRotary(settings: Settings, headDim: number, software: Software): Config {
  const share = Number(settings.rotary) / headDim;
  const shared = {
    rotary_base: settings.ropeTheta,
    rotary_percent: share,
    rotary_interleaved: false,
    ...(software === "megatron"
      ? { rotary_seq_len_interpolation_factor: null, use_rope_scaling: false }
      : { seq_len_interpolation_factor: null, ...(software === "bridge" && { rope_scaling: false }) }),
    position_embedding_type: "rope",
  };
  const factor = settings.ropeFactor;
  switch (settings.ropeScaling) {
    case "none":
      return shared;
    case "linear": {
      const key =
        software === "megatron" ? "rotary_seq_len_interpolation_factor" : "seq_len_interpolation_factor";
      return { ...shared, [key]: factor };
    }
    case "llama3":
      if (software === "nemo2")
        return {
          ...shared,
          scale_factor: factor,
          low_freq_factor: settings.ropeLowFactor,
          high_freq_factor: settings.ropeHighFactor,
          old_context_len: settings.ropeOriginalPositions,
        };
      refuseOtherLlama3(settings);
      return {
        ...shared,
        [software === "megatron" ? "use_rope_scaling" : "rope_scaling"]: true,
        rope_scaling_factor: factor,
      };
    default:
      if (software === "nemo2") throw notInMegatron("NeMo 2 has no YaRN positions");
      if (settings.ropeMagnitude !== yarnMagnitude({}, Number(factor)))
        throw notInMegatron(
          `its YaRN positions are multiplied by ${settings.ropeMagnitude}, which a record cannot say`,
        );
      return {
        ...shared,
        position_embedding_type: "yarn",
        yarn_rotary_scaling_factor: factor,
        yarn_original_max_position_embeddings: settings.ropeOriginalPositions,
        yarn_beta_fast: settings.ropeBetaFast,
        yarn_beta_slow: settings.ropeBetaSlow,
        yarn_mscale: 1,
        yarn_mscale_all_dim: 0,
        yarn_correction_range_round_to_int: settings.ropeTruncate,
      };
  }
}

function refuseOtherLlama3(settings: Settings): void {
  const other = Object.entries(LLAMA3).find(([name, value]) => settings[name] !== value);
  if (other === undefined) return;
  const [name, value] = other;
  throw notInMegatron(
    `${name} of its rotary positions is ${settings[name]}, and Megatron always uses ${value}`,
  );
}
