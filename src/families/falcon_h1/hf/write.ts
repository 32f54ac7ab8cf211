/** Writes config.json for a model from Megatron-Bridge, as the published releases spell it. */
import { IsologitError } from "../../../core/errors.ts";
import type { ConfigInput } from "../../dialect.ts";
import { COMMON_KEYS, configOf, PASSTHROUGH_KEYS } from "../../parts/hf/config.ts";
import { MULTIPLIER_LISTS, MULTIPLIERS } from "../multipliers.ts";

/** Keys of settings that are written as they are. */
const KEYS = {
  ...COMMON_KEYS,
  eps: "rms_norm_eps",
  tied: "tie_word_embeddings",
  attentionBias: "attention_bias",
  mlpBias: "mlp_bias",
  projectorsBias: "projectors_bias",
  mambaProjBias: "mamba_proj_bias",
  mambaHeads: "mamba_n_heads",
  mambaHeadDim: "mamba_d_head",
  groups: "mamba_n_groups",
  state: "mamba_d_state",
  convKernel: "mamba_d_conv",
  mambaRmsNorm: "mamba_rms_norm",
  ...MULTIPLIERS,
  ...Object.fromEntries(MULTIPLIER_LISTS.map(({ setting, key }) => [setting, key])),
};

/** @throws PLAN_IMPOSSIBLE for a model that such a config cannot describe */
export function writeConfig(model: Pick<ConfigInput, "settings" | "passthrough" | "dtype">) {
  const { settings, passthrough } = model;
  if (settings.mixerEps !== undefined) {
    const message = `its epsilon is ${settings.eps}, but ${settings.mixerEps} in the norm of a Mamba mixer, because Megatron always uses that value there; config.json has one epsilon for both`;
    const next = "convert it to bridge or packed";
    throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
  }
  const { chunk, expand } = passthrough;
  const own = {
    ...{ architectures: ["FalconH1ForCausalLM"], model_type: "falcon_h1", hidden_act: "silu" },
    mamba_d_ssm: Number(settings.mambaHeads) * Number(settings.mambaHeadDim),
    // without the norm the key means nothing, and the releases say false
    mamba_norm_before_gate: settings.normBeforeGate === true,
    ...{ mamba_conv_bias: true, mamba_use_mlp: true },
    ...(chunk !== undefined && { [PASSTHROUGH_KEYS.chunk]: chunk }),
    ...(expand !== undefined && { [PASSTHROUGH_KEYS.expand]: expand }),
  };
  return { config: configOf(model, KEYS, own), notes: [] };
}
