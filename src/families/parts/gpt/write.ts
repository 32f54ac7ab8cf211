/** Writes the config record of a GPTModel for Megatron-LM, Megatron-Bridge or NeMo 2. */
import type { ConfigInput, Passthrough } from "../../dialect.ts";
import type { Config, Settings } from "../../structure.ts";
import { blockCount } from "../blocks.ts";
import { VOCAB_STEP } from "../megatron/parallelism.ts";
import type { Software } from "../megatron/software.ts";
import type { GptModel } from "./read.ts";
import { gptRotary } from "./rotary.ts";

const BRIDGE_CLASS = "megatron.bridge.models.gpt_provider.GPTModelProvider";

/**
 * @param nemoClass dotted name of NeMo 2's config class
 * @throws PLAN_IMPOSSIBLE if the software would compute another function
 */
export function gptConfig(
  model: GptModel,
  nemoClass: string,
  { software, parallelism, dtype, settings }: ConfigInput,
): { readonly config: Config; readonly notes: readonly string[] } {
  const target = software as Software; // every writer of these dialects is one of them
  const isArguments = target === "megatron";
  const record: Config = {
    ...(target === "nemo2" && { _target_: nemoClass }),
    ...(target === "bridge" && { _target_: BRIDGE_CLASS }),
    num_layers: model.layers,
    hidden_size: model.hidden,
    ffn_hidden_size: model.ffn,
    num_attention_heads: model.heads,
    num_query_groups: model.kvHeads,
    kv_channels: model.headDim,
    vocab_size: model.vocab,
    seq_length: model.maxPositions ?? null,
    add_bias_linear: model.linearBias,
    add_qkv_bias: model.qkvBias && !model.linearBias,
    qk_layernorm: model.qkNorm,
    window_size: windowOf(model.window, target),
    normalization: model.norm === "RMSNorm" ? "RMSNorm" : "LayerNorm",
    ...(isArguments ? argumentsOf(model, parallelism.rows) : fieldsOf(model)),
    ...gptRotary(settings, model.headDim, target),
    ...moeKeys(model, isArguments),
    bf16: dtype === "bfloat16",
    params_dtype: { _call_: false, _target_: `torch.${dtype}` },
    make_vocab_size_divisible_by: VOCAB_STEP,
    tensor_model_parallel_size: parallelism.tp,
    pipeline_model_parallel_size: isArguments ? parallelism.stages.length : 1,
    ...(target === "bridge" && { should_pad_vocab: true }),
    ...(model.moe !== undefined && {
      expert_model_parallel_size: parallelism.ep,
      expert_tensor_parallel_size: isArguments ? parallelism.expertTp : 1,
    }),
  };
  return { config: record, notes: [] };
}

/** Names of Megatron-LM's arguments. */
const argumentsOf = (model: GptModel, rows: number): Config => ({
  norm_epsilon: model.eps,
  group_query_attention: true,
  swiglu: model.activation === "swiglu",
  squared_relu: model.activation === "squared-relu",
  apply_layernorm_1p: model.norm === "LayerNorm1p",
  untie_embeddings_and_output_weights: !model.tied,
  max_position_embeddings: model.maxPositions ?? null,
  padded_vocab_size: rows,
});

/** Names of TransformerConfig's fields, which NeMo 2 and Megatron-Bridge use. */
const fieldsOf = (model: GptModel): Config => ({
  layernorm_epsilon: model.eps,
  gated_linear_unit: model.activation === "swiglu",
  activation_func: {
    _call_: false,
    _target_:
      model.activation === "swiglu" ? "torch.nn.functional.silu" : "megatron.core.activations.squared_relu",
  },
  layernorm_zero_centered_gamma: model.norm === "LayerNorm1p",
  share_embeddings_and_output_weights: model.tied,
});

/** NeMo counts a window's tokens, Megatron those before the present one. */
function windowOf(window: number | undefined, software: Software): readonly [number, number] | null {
  return window === undefined ? null : [software === "nemo2" ? window : window - 1, 0];
}

function moeKeys({ moe }: GptModel, isArguments: boolean): Config {
  if (moe === undefined) return isArguments ? { num_experts: null } : { num_moe_experts: null };
  return {
    [isArguments ? "num_experts" : "num_moe_experts"]: moe.experts,
    moe_router_topk: moe.topK,
    moe_ffn_hidden_size: moe.ffn,
    moe_router_pre_softmax: moe.preSoftmax,
    moe_router_score_function: "softmax",
    moe_router_load_balancing_type: "aux_loss",
    moe_grouped_gemm: true,
    moe_layer_freq: moe.layers.every(Boolean) ? 1 : moe.layers.map(Number),
  };
}

/** What the settings of every family of dense blocks say of a model. */
export function gptWidths(settings: Settings, { maxPositions }: Passthrough) {
  const of = (name: string) => Number(settings[name]);
  return {
    layers: blockCount(settings),
    ...{ hidden: of("hidden"), vocab: of("vocab"), ffn: of("ffn"), eps: of("eps") },
    ...{ heads: of("heads"), kvHeads: of("kvHeads"), headDim: of("headDim") },
    rotary: settings as GptModel["rotary"], // the settings of such families extend these
    maxPositions: typeof maxPositions === "number" ? maxPositions : undefined,
  };
}
