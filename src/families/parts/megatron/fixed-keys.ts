/**
 * Keys of a Megatron record that engines use and that hold no setting of any model: those with only one supported value, and
 * those that change only the precision.
 *
 * Found in Megatron-LM core 0.9.0 to 0.19.0 and trunk of August 2026, Megatron-Bridge and NeMo 2. A source is a file of
 * Megatron-LM unless it names other software.
 */
import { canonicalJson } from "../../../core/hash.ts";
import type { KeyRemark } from "../../dialect.ts";
import type { Config } from "../../structure.ts";
import { type OnlyKey, remarkUnknown } from "../config-keys.ts";

export const CORE = "megatron/core/";
export const ATTENTION = `${CORE}transformer/attention.py`;
const MLP = `${CORE}transformer/mlp.py`;
export const NORM = `${CORE}extensions/transformer_engine.py`;
export const ROUTER = `${CORE}transformer/moe/router.py`;
const EXPERTS = `${CORE}transformer/moe/experts.py`;
const ARGUMENTS = "megatron/training/argument_utils.py";

export const OFF = [false, null];

export const COMMON_FIXED_KEYS: readonly OnlyKey[] = [
  {
    ...{ key: "softmax_scale", source: ATTENTION, only: [null], on: "*" },
    does: "replaces 1/√(head width) as the scale of attention's scores",
  },
  {
    ...{ key: "softmax_type", source: ATTENTION, only: ["vanilla", null], on: "*" },
    does: "adds a term to attention's softmax",
  },
  {
    ...{ key: "qk_l2_norm", source: ATTENTION, only: OFF, on: "*" },
    does: "normalises queries and keys",
  },
  {
    ...{ key: "attention_output_gate", source: ATTENTION, only: OFF, on: "*" },
    does: "adds a gate to attention's output",
  },
  {
    ...{ key: "head_wise_attn_gate", source: ATTENTION, only: OFF, on: "*" },
    does: "adds a gate to attention's output",
  },
  {
    ...{ key: "rotary_base_per_layer", source: ATTENTION, only: [null], on: "*" },
    does: "gives each attention layer rotary positions",
  },
  {
    ...{ key: "multi_latent_attention", source: ARGUMENTS, only: OFF },
    does: "replaces attention by latent attention",
  },
  {
    ...{
      key: "experimental_attention_variant",
      source: `${CORE}models/hybrid/hybrid_block.py`,
      only: [null],
    },
    does: "replaces attention by another kind",
  },
  {
    ...{ key: "apply_residual_connection_post_layernorm", only: OFF },
    source: `${CORE}transformer/transformer_config.py`,
    does: "reads the residual stream after the norm in Megatron's older layers",
  },
  {
    ...{ key: "transformer_block_type", only: ["pre_ln", null] },
    source: "nemo/collections/nlp/models/language_modeling/megatron_gpt_model.py of NeMo 1",
    does: "moves the norms",
  },
  {
    ...{ key: "activation_func_clamp_value", source: MLP, only: [null] },
    does: "clamps the activation of MLPs",
  },
  {
    ...{ key: "quick_geglu", source: ARGUMENTS, only: OFF },
    does: "changes the activation of MLPs and experts, and gates it",
  },
  {
    ...{ key: "use_mup", source: `${CORE}models/common/language_module/language_module.py`, only: OFF },
    does: "multiplies embeddings, logits and scores",
  },
  {
    ...{ key: "enable_mhc_connections", source: `${CORE}transformer/transformer_layer.py`, only: OFF },
    does: "replaces the residual stream by several streams",
  },
  {
    ...{ key: "heterogeneous_block_specs", source: `${CORE}transformer/transformer_config.py`, only: OFF },
    does: "gives each layer its own widths",
  },
  {
    ...{ key: "heterogeneous_layers_config_path", source: ARGUMENTS, only: [null] },
    does: "gives each layer its own widths",
  },
  {
    ...{ key: "heterogeneous_layers_config_encoded_json", source: ARGUMENTS, only: [null] },
    does: "gives each layer its own widths",
  },
  {
    ...{ key: "moe_shared_expert_gate", source: `${CORE}transformer/moe/moe_layer.py`, only: OFF, on: "E" },
    does: "adds a gate to the shared expert",
  },
  {
    ...{ key: "moe_router_load_balancing_type", source: ROUTER, on: "E" },
    ...{ only: ["aux_loss"], never: ["sinkhorn"] },
    does: "chooses experts by another rule",
  },
  {
    ...{ key: "moe_router_topk_limited_devices", source: ROUTER, only: [null], on: "E" },
    does: "limits which experts a token may choose",
  },
  {
    ...{ key: "moe_router_force_load_balancing", source: ROUTER, only: OFF, on: "E" },
    does: "chooses experts at random",
  },
  {
    ...{ key: "moe_router_force_biased", source: ROUTER, only: [null], on: "E" },
    does: "adds a random bias to the router's scores",
  },
  {
    ...{ key: "moe_input_jitter_eps", source: ROUTER, only: [null], on: "E" },
    does: "multiplies the router's input by noise",
  },
  {
    ...{ key: "moe_expert_capacity_factor", source: ROUTER, only: [null], on: "E" },
    does: "drops tokens beyond the capacity of an expert",
  },
  {
    ...{ key: "moe_expert_rank_capacity_factor", source: EXPERTS, only: [null], on: "E" },
    does: "drops tokens beyond the capacity of a rank",
  },
  {
    ...{ key: "moe_token_dropping", source: `${CORE}transformer/transformer_config.py`, only: OFF, on: "E" },
    does: "drops tokens beyond the capacity of an expert",
  },
  {
    ...{ key: "moe_apply_probs_on_input", source: EXPERTS, only: OFF, on: "E" },
    does: "multiplies an expert's input by its weight, not its output",
  },
  {
    ...{ key: "mtp_use_repeated_layer", source: `${CORE}transformer/multi_token_prediction.py`, only: OFF },
    ...{ on: "many steps", does: "runs the first prediction step's layers in every step" },
  },
];

/** A key that changes only the precision, not the function. A value that is not in `usual` is reported. */
interface NotedKey {
  readonly key: string;
  readonly source: string;
  readonly usual: readonly unknown[];
  readonly says: string;
}

const PRECISION = "the run computes the same weights in another precision than isologit";

export const NOTED_KEYS: readonly NotedKey[] = [
  {
    ...{ key: "apply_query_key_layer_scaling", usual: OFF },
    source: `${CORE}transformer/dot_product_attention.py`,
    says: "Megatron divides the scores of attention by the number of the layer and multiplies them by it in the softmax, which is the same function",
  },
  { key: "fp8", source: `${CORE}fp8_utils.py`, usual: OFF, says: PRECISION },
  { key: "fp4", source: `${CORE}fp4_utils.py`, usual: OFF, says: PRECISION },
  { key: "quant_recipe", source: `${CORE}models/hybrid/hybrid_model.py`, usual: OFF, says: PRECISION },
  { key: "use_kitchen", source: MLP, usual: OFF, says: PRECISION },
  { key: "kitchen_config_file", source: ARGUMENTS, usual: OFF, says: PRECISION },
  { key: "kitchen_recipe_number", source: ARGUMENTS, usual: OFF, says: PRECISION },
  { key: "te_precision_config_file", source: ARGUMENTS, usual: [null, false, ""], says: PRECISION },
  {
    ...{ key: "restore_modelopt_state", usual: OFF },
    source: "megatron/bridge/models/hybrid/hybrid_provider.py of Megatron-Bridge",
    says: "the model was quantised or pruned by ModelOpt, whose state is not read",
  },
];

/** Findings about keys of a record that are not settings: keys in no table, and unusual values of keys of precision. */
export function recordRemarks(config: Config, known: ReadonlySet<string>): readonly KeyRemark[] {
  const unusual = NOTED_KEYS.filter(({ key, usual }) => {
    const value = config[key];
    return value !== undefined && !usual.some((one) => canonicalJson(one) === canonicalJson(value));
  });
  return [
    ...remarkUnknown(config, known),
    ...unusual.map(({ key, says }): KeyRemark => {
      const message = `${key} is ${canonicalJson(config[key])}: ${says}`;
      return { rule: "config-precision", severity: "note", message };
    }),
  ];
}
