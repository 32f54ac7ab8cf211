/** What the config.json of models with attention, Mamba-2 and gated MLPs share where it is written for a model from another dialect. */
import type { ConfigInput, Passthrough } from "../../dialect.ts";
import type { Config, Settings } from "../../structure.ts";
import { COMMON_KEYS, PASSTHROUGH_KEYS } from "../hf/config.ts";

/** Keys of settings that are written as they are. */
export const HYBRID_KEYS = {
  ...COMMON_KEYS,
  eps: "rms_norm_eps",
  tied: "tie_word_embeddings",
  attentionBias: "attention_bias",
  mambaProjBias: "mamba_proj_bias",
  mambaHeads: "mamba_n_heads",
  mambaHeadDim: "mamba_d_head",
  groups: "mamba_n_groups",
  state: "mamba_d_state",
  convKernel: "mamba_d_conv",
} as const;

/** Keys that these models have alike, whatever their settings. */
export const hybridConstants = ({ chunk }: Passthrough): Config => ({
  ...{ hidden_act: "silu", mamba_conv_bias: true },
  ...(chunk !== undefined && { [PASSTHROUGH_KEYS.chunk]: chunk }),
});

/** The factor of the hidden width for families whose config names one. */
export const expandOf = ({ mambaHeads, mambaHeadDim, hidden }: Settings): Config => ({
  [PASSTHROUGH_KEYS.expand]: (Number(mambaHeads) * Number(mambaHeadDim)) / Number(hidden),
});

/** What a writer of config.json reads. */
export type HfModel = Pick<ConfigInput, "settings" | "passthrough" | "dtype">;
