/** config.json of the dense and MoE families: defaults of Transformers, both spellings, and values that are refused. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parseJsonObject } from "../../src/core/json.ts";
import { families } from "../../src/families/index.ts";
import { dialectOf, familyOf } from "../../src/families/recognise.ts";
import type { Config, Settings } from "../../src/families/structure.ts";
import { errorOf } from "../support/errors.ts";
import { familyGolden } from "../support/goldens.ts";

const NAMES = ["llama", "mistral", "qwen2", "qwen3", "nemotron", "mixtral", "qwen3_moe"] as const;
/** Families whose config is only copied, because no other dialect has them. */
const COPIED = ["bamba", "falcon_h1", "granitemoehybrid"] as const;
type Name = (typeof NAMES)[number] | (typeof COPIED)[number];

const read = (path: string): Config => parseJsonObject(readFileSync(path), { nonFinite: true });
const configOf = (name: Name): Config => read(`${familyGolden(name)}/config.json`);
const dialect = (config: Config) => dialectOf(familyOf(config, families)!, "hf");
const settingsOf = (config: Config): Settings => dialect(config).settings(config, { tensors: [] }).settings;

/** The golden's config with some keys changed; undefined: the key is absent. */
const changed = (name: Name, keys: Config): Config =>
  Object.fromEntries(
    Object.entries({ ...configOf(name), ...keys }).filter(([, value]) => value !== undefined),
  );

describe.each([...NAMES, ...COPIED])("%s", (name) => {
  it("means the same as Transformers 5 spells it", () => {
    const spelt = read(`${familyGolden("t5-configs")}/${name}.json`);
    expect(spelt).toHaveProperty("rope_parameters");
    expect(settingsOf(spelt)).toEqual(settingsOf(configOf(name)));
  });

  it("is refused where Transformers would load other weights", () => {
    const config = { ...configOf(name), transformers_weights: "other.safetensors" };
    const seen = { tensors: [], files: ["model.safetensors"] };
    expect(() => dialect(config).settings(config, seen)).toThrow(
      /transformers_weights is "other.safetensors"/,
    );
  });

  it("has no key that is unknown, in either spelling", () => {
    for (const config of [configOf(name), read(`${familyGolden("t5-configs")}/${name}.json`)])
      expect(dialect(config).keyRemarks(config)).toEqual([]);
  });

  it.runIf(NAMES.some((written) => written === name))("comes back from the settings", () => {
    const { settings, passthrough } = dialect(configOf(name)).settings(configOf(name), { tensors: [] });
    const shards = { tp: 1, ep: 1, expertTp: 1, stages: [], rows: 0 };
    const { config } = dialect(configOf(name)).config({
      ...{ settings, passthrough, dtype: "bfloat16", software: "hf", parallelism: shards },
    });
    expect(settingsOf(config)).toEqual(settings);
    expect(config.model_type).toBe(configOf(name).model_type);
    const golden = configOf(name);
    const other = Object.keys(config).filter(
      (key) => golden[key] !== undefined && JSON.stringify(golden[key]) !== JSON.stringify(config[key]),
    );
    // a window that is switched off is null; the golden has the number of the published files
    expect(other.filter((key) => key !== "sliding_window" && key !== "rope_scaling")).toEqual([]);
  });
});

it.each<[name: Name, keys: Config, settings: Settings]>([
  ["llama", { rms_norm_eps: undefined }, { eps: 1e-6 }],
  ["llama", { num_key_value_heads: undefined }, { kvHeads: 4 }],
  ["llama", { head_dim: null }, { headDim: 16 }],
  ["llama", { attention_bias: true }, { qkvBias: true, outBias: true }],
  ["llama", { rope_theta: undefined }, { ropeTheta: 10_000 }],
  ["llama", { tie_word_embeddings: undefined }, { tied: false }],
  ["mistral", { sliding_window: undefined }, { window: 4096, pattern: "s-s-s-s-" }],
  ["mistral", { sliding_window: null }, { pattern: "*-*-*-*-" }],
  ["mistral", { rms_norm_eps: undefined }, { eps: 1e-6 }],
  ["qwen2", { sliding_window: 8 }, { pattern: "*-*-*-*-", qkvBias: true, outBias: false }],
  ["qwen2", { use_sliding_window: true, sliding_window: 8, max_window_layers: 3 }, { pattern: "*-*-*-s-" }],
  ["qwen3", { head_dim: undefined }, { headDim: 128 }],
  ["qwen3", { attention_bias: true }, { qkvBias: true, outBias: true }],
  ["nemotron", { norm_eps: undefined }, { eps: 1e-5 }],
  ["nemotron", { partial_rotary_factor: undefined }, { rotary: 12 }],
  ["nemotron", { partial_rotary_factor: 1 }, { rotary: 24 }],
  ["nemotron", { head_dim: undefined, partial_rotary_factor: undefined }, { headDim: 16, rotary: 8 }],
  ["nemotron", { attention_bias: true }, { attentionBias: true }],
  ["nemotron", { mlp_bias: true }, { mlpBias: true }],
  ["mixtral", { rms_norm_eps: undefined }, { eps: 1e-5 }],
  ["mixtral", { rope_theta: undefined }, { ropeTheta: 1e6 }],
  ["mixtral", { sliding_window: undefined }, { pattern: "*E*E*E" }],
  ["mixtral", { sliding_window: 8 }, { pattern: "sEsEsE", window: 8 }],
  ["mixtral", { num_local_experts: undefined, num_experts: 4 }, { experts: 4 }],
  ["mixtral", { num_local_experts: undefined, num_experts_per_tok: undefined }, { experts: 8, topK: 2 }],
  ["mixtral", {}, { moeFfn: 48, routeNormalise: true, headDim: 16 }],
  ["qwen3_moe", { num_experts: undefined, num_local_experts: 8 }, { experts: 8 }],
  ["qwen3_moe", { norm_topk_prob: undefined }, { routeNormalise: false }],
  ["qwen3_moe", { head_dim: undefined }, { headDim: 16 }],
  ["qwen3_moe", { rms_norm_eps: undefined }, { eps: 1e-6 }],
  ["qwen3_moe", { rope_theta: undefined }, { ropeTheta: 10_000 }],
  ["qwen3_moe", { sliding_window: 8 }, { pattern: "*E*E*E" }],
  ["qwen3_moe", { use_sliding_window: true, sliding_window: 8 }, { pattern: "sEsEsE", window: 8 }],
  ["qwen3_moe", { use_sliding_window: true, sliding_window: undefined }, { window: 4096 }],
  ["qwen3_moe", { use_sliding_window: true }, { pattern: "*E*E*E" }],
  ["qwen3_moe", { mlp_only_layers: [1] }, { pattern: "*E*-*E", ffn: 96, moeFfn: 24 }],
  ["qwen3_moe", { mlp_only_layers: null }, { pattern: "*E*E*E" }],
  ["qwen3_moe", { decoder_sparse_step: 2 }, { pattern: "*-*E*-" }],
  ["qwen3_moe", { decoder_sparse_step: 2, mlp_only_layers: [1] }, { pattern: "*-*-*-" }],
  [
    "nemotron",
    { rope_parameters: { rope_theta: 5e5, rope_type: "default" }, rope_theta: undefined },
    { ropeTheta: 5e5 },
  ],
  ["bamba", { attn_layer_indices: [0, 3] }, { pattern: "*-M-M-*-" }],
  ["bamba", { attn_layer_indices: null }, { pattern: "M-M-M-M-" }],
  ["bamba", { attn_layer_indices: undefined }, { pattern: "M-M-M-M-" }],
  ["bamba", { mamba_d_head: "auto" }, { mambaHeadDim: 16 }],
  ["bamba", { mamba_d_head: undefined, mamba_n_heads: 4 }, { mambaHeads: 4, mambaHeadDim: 32 }],
  ["bamba", { mamba_proj_bias: true }, { mambaProjBias: true }],
  ["bamba", { attention_bias: true, mlp_bias: true }, { attentionBias: true, mlpBias: true }],
  ["bamba", { rms_norm_eps: undefined }, { eps: 1e-5 }],
  ["bamba", { num_key_value_heads: null }, { kvHeads: 4 }],
  ["bamba", { num_key_value_heads: undefined, num_attention_heads: 8, head_dim: 16 }, { kvHeads: 8 }],
  ["bamba", { attn_rotary_emb: undefined }, { headDim: 16, rotary: 8 }],
  ["bamba", { rope_theta: undefined }, { ropeTheta: 10_000 }],
  ["bamba", { time_step_limit: [0, 1e30] }, { dtMin: 0, dtMax: "Infinity" }],
  ["bamba", { time_step_limit: [0.01, 0.1] }, { dtMin: 0.01, dtMax: 0.1 }],
  ["bamba", { tie_word_embeddings: true }, { tied: true }],
  ["falcon_h1", { mamba_d_ssm: null, mamba_n_heads: 8 }, { mambaHeads: 8, mambaHeadDim: 16 }],
  ["falcon_h1", { mamba_d_ssm: undefined, mamba_n_heads: 64 }, { mambaHeads: 64, mambaHeadDim: 16 }],
  ["falcon_h1", { mamba_d_head: "auto", mamba_n_heads: 12 }, { mambaHeads: 12, mambaHeadDim: 8 }],
  ["falcon_h1", { mamba_rms_norm: undefined }, { mambaRmsNorm: false }],
  ["falcon_h1", { mamba_rms_norm: true }, { mambaRmsNorm: true, normBeforeGate: false }],
  [
    "falcon_h1",
    { mamba_rms_norm: true, mamba_norm_before_gate: undefined },
    { mambaRmsNorm: true, normBeforeGate: true },
  ],
  ["falcon_h1", { ssm_multipliers: null }, { ssmMultipliers: [1, 1, 1, 1, 1] }],
  ["falcon_h1", { mlp_multipliers: undefined }, { mlpMultipliers: [1, 1] }],
  [
    "falcon_h1",
    { key_multiplier: undefined, lm_head_multiplier: 0.0078125 },
    { keyMultiplier: 1, lmHeadMultiplier: 0.0078125 },
  ],
  ["falcon_h1", { mamba_proj_bias: true }, { mambaProjBias: true, projectorsBias: false }],
  ["falcon_h1", { projectors_bias: true }, { mambaProjBias: false, projectorsBias: true }],
  ["falcon_h1", { rope_theta: undefined }, { ropeTheta: 10_000, rotary: 24 }],
  ["falcon_h1", { head_dim: undefined }, { headDim: 16 }],
  ["granitemoehybrid", { layer_types: undefined }, { pattern: "MEMEMEME" }],
  ["granitemoehybrid", { layer_types: null }, { pattern: "MEMEMEME" }],
  [
    "granitemoehybrid",
    { layer_types: undefined, layers_block_type: ["mamba", "attention", "attention", "mamba"] },
    { pattern: "ME*E*EME" },
  ],
  ["granitemoehybrid", { num_local_experts: 0 }, { pattern: "M-M-*-M-", ffn: 48 }],
  ["granitemoehybrid", { num_local_experts: undefined }, { experts: 8 }],
  ["granitemoehybrid", {}, { experts: 6, topK: 2, moeFfn: 24, ffn: 48 }],
  ["granitemoehybrid", { attention_multiplier: undefined }, { attentionMultiplier: 1 }],
  [
    "granitemoehybrid",
    { embedding_multiplier: undefined, residual_multiplier: undefined, logits_scaling: undefined },
    { embeddingMultiplier: 1, residualMultiplier: 1, logitsScaling: 1 },
  ],
  ["granitemoehybrid", { position_embedding_type: "rope" }, { rotary: 16, ropeTheta: 10_000 }],
  ["granitemoehybrid", { num_key_value_heads: undefined }, { kvHeads: 4 }],
  ["granitemoehybrid", { rms_norm_eps: undefined }, { eps: 1e-6 }],
  ["granitemoehybrid", { shared_intermediate_size: undefined }, { ffn: 1024 }],
  ["granitemoehybrid", { tie_word_embeddings: undefined }, { tied: false }],
])("%s with %j is %j", (name, keys, settings) => {
  expect(settingsOf(changed(name, keys))).toMatchObject(settings);
});

it.each<[name: Name, keys: Config, code: string, says: RegExp]>([
  ["llama", { hidden_act: "gelu" }, "UNSUPPORTED", /hidden_act is "gelu"/],
  ["llama", { pretraining_tp: 2 }, "UNSUPPORTED", /pretraining_tp is 2/],
  ["llama", { rope_scaling: { rope_type: "dynamic", factor: 2 } }, "UNSUPPORTED", /rope_type is "dynamic"/],
  [
    "llama",
    { rope_parameters: { full_attention: { rope_type: "default", rope_theta: 5 } } },
    "UNSUPPORTED",
    /values for each kind of layer/,
  ],
  ["llama", { sliding_window: 8 }, "UNSUPPORTED", /sliding_window is 8/],
  ["llama", { num_key_value_heads: 3 }, "CONFIG_INVALID", /not a multiple of num_key_value_heads, 3/],
  ["llama", { rms_norm_eps: null }, "CONFIG_INVALID", /rms_norm_eps is null/],
  ["mixtral", { hidden_act: "gelu" }, "UNSUPPORTED", /hidden_act is "gelu"/],
  ["mixtral", { num_experts: 8 }, "CONFIG_INVALID", /num_experts is 8, but num_local_experts is 4/],
  ["mixtral", { num_experts_per_tok: 5 }, "CONFIG_INVALID", /cannot choose 5 of 4 experts/],
  ["mixtral", { num_local_experts: 1e6 }, "LIMIT_EXCEEDED", /experts/],
  ["mixtral", { attention_bias: true }, "UNSUPPORTED", /attention_bias is true/],
  ["qwen3_moe", { shared_expert_intermediate_size: 32 }, "UNSUPPORTED", /each token uses/],
  ["qwen3_moe", { mlp_bias: true }, "UNSUPPORTED", /mlp_bias is true/],
  ["qwen3_moe", { mlp_only_layers: ["1"] }, "CONFIG_INVALID", /mlp_only_layers/],
  ["qwen3_moe", { decoder_sparse_step: 0 }, "CONFIG_INVALID", /decoder_sparse_step is 0/],
  ["nemotron", { hidden_act: "silu" }, "UNSUPPORTED", /hidden_act is "silu"/],
  ["nemotron", { tie_word_embeddings: true }, "UNSUPPORTED", /tie_word_embeddings is true/],
  [
    "nemotron",
    { partial_rotary_factor: 0.4, rope_parameters: { partial_rotary_factor: 0.5 } },
    "CONFIG_INVALID",
    /partial_rotary_factor is 0.4, but 0.5/,
  ],
  ["nemotron", { partial_rotary_factor: 0.4 }, "CONFIG_INVALID", /no even number/],
  ["nemotron", { num_key_value_heads: undefined }, "CONFIG_INVALID", /num_key_value_heads is missing/],
  ["nemotron", { rope_scaling: { type: "longrope" } }, "UNSUPPORTED", /rope_type is "longrope"/],
  ["nemotron", { model_type: "nemotron-nas" }, "UNSUPPORTED", /model_type is nemotron-nas/],
  ["bamba", { attn_layer_indices: [4] }, "CONFIG_INVALID", /attn_layer_indices has 4, but/],
  ["bamba", { attn_layer_indices: ["2"] }, "CONFIG_INVALID", /attn_layer_indices is \["2"\]/],
  ["bamba", { attn_rotary_emb: 16 }, "CONFIG_INVALID", /attn_rotary_emb turns 16 of the 16/],
  ["bamba", { partial_rotary_factor: 1 }, "CONFIG_INVALID", /partial_rotary_factor turns 16 of the 16/],
  ["bamba", { mamba_n_heads: 4 }, "CONFIG_INVALID", /must be the inner width, 128 \(mamba_expand/],
  ["bamba", { mamba_d_head: "auto", mamba_n_heads: 12 }, "CONFIG_INVALID", /must be the inner width, 128/],
  ["bamba", { mamba_n_groups: 3 }, "CONFIG_INVALID", /not a multiple of mamba_n_groups, 3/],
  ["bamba", { mamba_conv_bias: false }, "UNSUPPORTED", /mamba_conv_bias is false/],
  ["bamba", { time_step_limit: null }, "CONFIG_INVALID", /time_step_limit is null/],
  ["bamba", { hidden_act: "gelu" }, "UNSUPPORTED", /hidden_act is "gelu"/],
  ["falcon_h1", { mamba_use_mlp: false }, "UNSUPPORTED", /mamba_use_mlp is false/],
  ["falcon_h1", { mamba_d_ssm: 128 }, "CONFIG_INVALID", /must be the inner width, 128 \(mamba_d_ssm/],
  ["falcon_h1", { mamba_d_ssm: undefined }, "CONFIG_INVALID", /must be the inner width, 1024/],
  ["falcon_h1", { ssm_multipliers: [1, 1] }, "CONFIG_INVALID", /expected a list of 5 numbers/],
  ["falcon_h1", { key_multiplier: null }, "CONFIG_INVALID", /key_multiplier is null/],
  ["falcon_h1", { partial_rotary_factor: 0.5 }, "CONFIG_INVALID", /turns 12 of the 24/],
  ["granitemoehybrid", { layer_types: ["mamba"] }, "CONFIG_INVALID", /layer_types has 1 entries/],
  [
    "granitemoehybrid",
    { layer_types: ["mamba", "mamba", "linear", "mamba"] },
    "CONFIG_INVALID",
    /expected a list of mamba, attention/,
  ],
  [
    "granitemoehybrid",
    { layers_block_type: ["mamba", "mamba", "mamba", "mamba"] },
    "CONFIG_INVALID",
    /layers_block_type is .*, but layer_types is/,
  ],
  ["granitemoehybrid", { num_experts_per_tok: 7 }, "CONFIG_INVALID", /cannot choose 7 of 6 experts/],
  ["granitemoehybrid", { position_embedding_type: "alibi" }, "CONFIG_INVALID", /expected nope or rope/],
  ["granitemoehybrid", { normalization_function: "layernorm" }, "UNSUPPORTED", /normalization_function/],
  ["granitemoehybrid", { logits_scaling: 0 }, "CONFIG_INVALID", /logits_scaling is 0/],
  ["granitemoehybrid", { mlp_bias: true }, "UNSUPPORTED", /mlp_bias is true/],
])("%s with %j is refused, %s", async (name, keys, code, says) => {
  const error = await errorOf(async () => {
    const config = changed(name, keys);
    familyOf(config, families)!.dims(settingsOf(config));
  });
  expect(error).toMatchObject({ code, message: expect.stringMatching(says) });
});
