/**
 * Defaults of NeMo 2's model classes. NeMo 2 stores only arguments, so the config of a standard import or recipe may have only
 * its class. Values under the names of NeMo's fields.
 *
 * @see nemo/collections/llm/gpt/model/{llama,qwen2,qwen3,mistral,mixtral,nemotron}.py
 */
import type { Config } from "../../structure.ts";

const ROPE = { position_embedding_type: "rope" } as const;
const GATED = {
  ...{ normalization: "RMSNorm", gated_linear_unit: true, activation_func: "silu", add_bias_linear: false },
  ...ROPE,
} as const;
const LLAMA = { ...GATED, layernorm_epsilon: 1e-5, rotary_base: 10_000 } as const;
const LLAMA3 = { ...LLAMA, num_query_groups: 8, rotary_base: 500_000 } as const;
const LLAMA31 = {
  ...{ ...LLAMA3, scale_factor: 8, low_freq_factor: 1, high_freq_factor: 4, old_context_len: 8192 },
} as const;
const QWEN2 = { ...GATED, layernorm_epsilon: 1e-6, rotary_base: 1e6, add_qkv_bias: true } as const;
const QWEN3 = {
  ...{ ...GATED, layernorm_epsilon: 1e-6, rotary_base: 1e6, qk_layernorm: true, kv_channels: 128 },
  num_query_groups: 8,
} as const;
const MISTRAL = { ...GATED, layernorm_epsilon: 1e-5, num_query_groups: 8, rotary_base: 1e6 } as const;
const MIXTRAL = { ...MISTRAL, num_moe_experts: 8, moe_router_topk: 2 } as const;
const NEMOTRON = {
  ...{ normalization: "LayerNorm", layernorm_zero_centered_gamma: true, add_bias_linear: false },
  ...{ gated_linear_unit: false, activation_func: "squared_relu", layernorm_epsilon: 1e-5, ...ROPE },
  ...{ rotary_percent: 0.5, rotary_base: 10_000, kv_channels: 128 },
} as const;

/** layers, hidden, ffn, heads, groups (0: as many as heads) */
type Sizes = readonly [number, number, number, number, number];
type Row = readonly [base: Config, sizes?: Sizes, more?: Config];

const tied = { share_embeddings_and_output_weights: true } as const;
const eps5 = { layernorm_epsilon: 1e-5 } as const;

const CLASSES: Readonly<Record<string, Row>> = {
  LlamaConfig: [LLAMA],
  Llama2Config7B: [LLAMA, [32, 4096, 11008, 32, 32]],
  Llama2Config13B: [LLAMA, [40, 5120, 13824, 40, 40]],
  Llama2Config70B: [LLAMA, [80, 8192, 28672, 64, 8]],
  Llama3Config: [LLAMA3],
  Llama3Config8B: [LLAMA3, [32, 4096, 14336, 32, 8]],
  Llama3Config70B: [LLAMA3, [80, 8192, 28672, 64, 8]],
  Llama31Config: [LLAMA31],
  Llama31Config8B: [LLAMA31, [32, 4096, 14336, 32, 8]],
  Llama31Config70B: [LLAMA31, [80, 8192, 28672, 64, 8]],
  Llama31Config405B: [LLAMA31, [126, 16384, 53248, 128, 8]],
  Llama32Config1B: [LLAMA31, [16, 2048, 8192, 32, 8], { scale_factor: 32, ...tied }],
  Llama32Config3B: [LLAMA31, [28, 3072, 8192, 24, 8], { scale_factor: 32, ...tied }],
  Qwen2Config: [QWEN2],
  Qwen2Config500M: [QWEN2, [24, 896, 4864, 14, 2]],
  Qwen2Config1P5B: [QWEN2, [28, 1536, 8960, 12, 2]],
  Qwen25Config500M: [QWEN2, [24, 896, 4864, 14, 2]],
  Qwen25Config1P5B: [QWEN2, [28, 1536, 8960, 12, 2]],
  Qwen25Config3B: [QWEN2, [36, 2048, 11008, 16, 2], tied],
  Qwen2Config7B: [QWEN2, [28, 3584, 18944, 28, 4]],
  Qwen25Config7B: [QWEN2, [28, 3584, 18944, 28, 4]],
  Qwen25Config14B: [QWEN2, [48, 5120, 13824, 40, 8], eps5],
  Qwen25Config32B: [QWEN2, [64, 5120, 27648, 40, 8], eps5],
  Qwen2Config72B: [QWEN2, [80, 8192, 29568, 64, 8], eps5],
  Qwen25Config72B: [QWEN2, [80, 8192, 29568, 64, 8], eps5],
  Qwen3Config: [QWEN3],
  Qwen3Config600M: [QWEN3, [28, 1024, 3072, 16, 8], tied],
  Qwen3Config1P7B: [QWEN3, [28, 2048, 6144, 16, 8], tied],
  Qwen3Config4B: [QWEN3, [36, 2560, 9728, 32, 8], tied],
  Qwen3Config8B: [QWEN3, [36, 4096, 12288, 32, 8]],
  Qwen3Config14B: [QWEN3, [40, 5120, 17408, 40, 8]],
  Qwen3Config32B: [QWEN3, [64, 5120, 25600, 64, 8]],
  Qwen3MoEConfig: [QWEN3],
  Qwen3Config30B_A3B: [
    QWEN3,
    [48, 2048, 6144, 32, 4],
    { num_moe_experts: 128, moe_router_topk: 8, moe_ffn_hidden_size: 768 },
  ],
  Qwen3Config235B_A22B: [
    QWEN3,
    [94, 4096, 12288, 64, 4],
    { num_moe_experts: 128, moe_router_topk: 8, moe_ffn_hidden_size: 1536 },
  ],
  MistralConfig7B: [MISTRAL, [32, 4096, 14336, 32, 8], { rotary_base: 10_000, window_size: [4096, 0] }],
  MistralNeMoConfig12B: [MISTRAL, [40, 5120, 14336, 32, 8], { kv_channels: 128 }],
  MistralNeMoConfig123B: [MISTRAL, [88, 12288, 28672, 96, 8], { kv_channels: 128 }],
  MixtralConfig: [MIXTRAL],
  MixtralConfig8x3B: [MIXTRAL, [32, 2560, 8960, 32, 8]],
  MixtralConfig8x7B: [MIXTRAL, [32, 4096, 14336, 32, 8]],
  MixtralConfig8x22B: [MIXTRAL, [56, 6144, 16384, 48, 8]],
  NemotronConfig: [NEMOTRON],
  Nemotron3Config4B: [NEMOTRON, [32, 3072, 9216, 24, 8]],
  Nemotron3Config8B: [NEMOTRON, [32, 4096, 16384, 32, 0], { kv_channels: null }],
  Nemotron3Config22B: [NEMOTRON, [40, 6144, 24576, 48, 0], { kv_channels: null }],
  Nemotron4Config15B: [NEMOTRON, [32, 6144, 24576, 48, 8], { kv_channels: null }],
  Nemotron4Config340B: [NEMOTRON, [96, 18432, 73728, 96, 8], { kv_channels: null }],
};

/** The default fields of a config's class, by its dotted name; empty for a class that is not part of NeMo. */
export function classDefaults(target: unknown): Config {
  const name = typeof target === "string" ? target.slice(target.lastIndexOf(".") + 1) : "";
  const row = Object.hasOwn(CLASSES, name) ? CLASSES[name] : undefined;
  if (row === undefined) return {};
  const [base, sizes, more = {}] = row;
  if (sizes === undefined) return { ...base, ...more };
  const [num_layers, hidden_size, ffn_hidden_size, num_attention_heads, groups] = sizes;
  return {
    ...base,
    ...{ num_layers, hidden_size, ffn_hidden_size, num_attention_heads },
    num_query_groups: groups === 0 ? num_attention_heads : groups,
    ...more,
  };
}
