/** Writes config.json for a model from Megatron-Bridge, as the published releases spell it. */
import { IsologitError } from "../../../core/errors.ts";
import { configOf, PASSTHROUGH_KEYS } from "../../parts/hf/config.ts";
import { type HfModel, HYBRID_KEYS, hybridConstants } from "../../parts/hybrid/write.ts";
import { MULTIPLIER_LISTS, MULTIPLIERS } from "../multipliers.ts";

/** Keys of settings that are written as they are. */
const KEYS = {
  ...HYBRID_KEYS,
  mlpBias: "mlp_bias",
  projectorsBias: "projectors_bias",
  mambaRmsNorm: "mamba_rms_norm",
  ...MULTIPLIERS,
  ...Object.fromEntries(MULTIPLIER_LISTS.map(({ setting, key }) => [setting, key])),
};

/** @throws PLAN_IMPOSSIBLE for a model that such a config cannot describe */
export function writeConfig(model: HfModel) {
  const { settings, passthrough } = model;
  if (settings.mixerEps !== undefined) {
    const message = `its epsilon is ${settings.eps}, but ${settings.mixerEps} in the norm of a Mamba mixer, because Megatron always uses that value there; config.json has one epsilon for both`;
    const next = "convert it to bridge or packed";
    throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
  }
  const { expand } = passthrough;
  const own = {
    ...{ architectures: ["FalconH1ForCausalLM"], model_type: "falcon_h1" },
    ...hybridConstants(passthrough),
    mamba_d_ssm: Number(settings.mambaHeads) * Number(settings.mambaHeadDim),
    // without the norm the key means nothing, and the releases say false
    mamba_norm_before_gate: settings.normBeforeGate === true,
    mamba_use_mlp: true,
    ...(expand !== undefined && { [PASSTHROUGH_KEYS.expand]: expand }),
  };
  return { config: configOf(model, KEYS, own), notes: [] };
}
