/**
 * Falcon-H1 as Megatron-Bridge stores it, cut by hand from a copy of a Hugging Face checkpoint: a few lines of their own, which
 * know neither the rules nor the uses that they try. No such checkpoint is published. Names, cuts and the record follow
 * the classes of Megatron-Bridge (`models/falcon_h1`) and Megatron core (`ssm/mamba_mixer.py`).
 */
import type { Checkpoint } from "../../../src/core/checkpoint.ts";
import { encode } from "../../../src/core/float.ts";
import type { StoredArray } from "../goldens.ts";
import { joined, openedMegatron, rowsOf } from "./megatron-copy.ts";
import { type Copy, Editor } from "./planted.ts";

/** The record of the golden model, with the fields that Bridge's class inherits as its other records have them. */
export const RECORD: Checkpoint["config"] = {
  _target_: "megatron.bridge.models.falcon_h1.falconh1_provider.FalconH1ModelProvider",
  ...{ A_init_dist: "uniform", A_init_range: [1, 16], D_has_hdim: false, conv_init: 1 },
  activation_func: { _call_: false, _target_: "torch.nn.functional.silu" },
  ...{ activation_func_clamp_value: null, add_bias_linear: false, add_qkv_bias: false },
  ...{ attention_backend: { _call_: true, _target_: "megatron.core.transformer.enums.AttnBackend" } },
  ...{ attention_dropout: 0, attention_in_multiplier: 1.3, attention_out_multiplier: 0.8 },
  autocast_dtype: { _call_: false, _target_: "torch.bfloat16" },
  ...{ bf16: true, bias_dropout_fusion: false, chunk_size: 64, conv_bias: true, d_conv: 4 },
  ...{ dt_init: "random", dt_init_floor: 0.0001, dt_max: 0.1, dt_min: 0.001, dt_scale: 1 },
  ...{ embedding_multiplier: 2.2, expand: 2, expert_model_parallel_size: 1, falconh1_ratio: 1 },
  falconh1_stack_spec: {
    _call_: false,
    _target_: "megatron.bridge.models.falcon_h1.falconh1_provider.get_default_falconh1_stack_spec",
  },
  ...{ ffn_hidden_size: 80, fp16: false, gated_linear_unit: true, glu_linear_offset: 0 },
  ...{ hidden_dropout: 0, hidden_size: 64, hybrid_attention_ratio: 0, hybrid_mlp_ratio: 0 },
  ...{ hybrid_override_pattern: null, init_method_std: 0.02, key_multiplier: 0.6, kv_channels: 24 },
  ...{ layernorm_epsilon: 1e-5, layernorm_zero_centered_gamma: false, lm_head_multiplier: 0.45 },
  ...{ make_vocab_size_divisible_by: 128, mamba_head_dim: 16, mamba_num_groups: 2, mamba_num_heads: 6 },
  ...{ mamba_state_dim: 16, mlp_multipliers: [0.9, 0.6], moe_router_topk: 2, mtp_num_layers: null },
  ...{ norm_before_gate: false, normalization: "RMSNorm", num_attention_heads: 4, num_layers: 3 },
  ...{ num_moe_experts: null, num_query_groups: 2, pipeline_model_parallel_size: 1 },
  params_dtype: { _call_: false, _target_: "torch.bfloat16" },
  ...{ position_embedding_type: "rope", qk_layernorm: false, rmsnorm: false },
  ...{ rotary_base: 100_000_000_000, rotary_interleaved: false, rotary_percent: 1 },
  ...{ seq_len_interpolation_factor: null, seq_length: 16384, should_pad_vocab: false },
  ...{ share_embeddings_and_output_weights: false, softmax_type: "vanilla", ssm_in_multiplier: 1.25 },
  ...{ ssm_multipliers: [0.7, 1.2, 0.8, 1.4, 1.1], ssm_out_multiplier: 0.7 },
  ...{ tensor_model_parallel_size: 1, transformer_impl: "local", use_attention: true, use_mamba: true },
  ...{ use_mamba_mem_eff_path: true, use_mlp: true, vocab_size: 512, window_size: null },
};

const HEAD = 24;
const [HEADS, GROUPS] = [4, 2];
/** Rows of in_proj, in their order. */
const IN = { z: 96, x: 96, B: 32, C: 32, dt: 6 };
const CHANNELS = { x: 96, B: 32, C: 32 };

/** The golden model with the gated norm inside its mixers, whose gains all differ. */
export function normed(source: Copy): Copy {
  const editor = new Editor(source);
  editor.config({ mamba_rms_norm: true });
  for (let block = 0; block < 3; block++) {
    const gains = Uint16Array.from({ length: 96 }, (_, i) =>
      encode("BF16", 0.5 + ((i * 7 + block) % 97) / 97),
    );
    editor.add(`model.layers.${block}.mamba.norm.weight`, "BF16", [96], new Uint8Array(gains.buffer));
  }
  return editor.copy;
}

/** @param rows of the token table and the head, padding included */
export function falconInBridge({ tensors, files }: Copy, rows = 512): Copy {
  const out = new Map<string, StoredArray>();
  const get = (name: string) => tensors.get(name)!;
  const cut = (array: StoredArray, parts: Readonly<Record<string, number>>, name: string) => {
    let at = 0;
    for (const [part, size] of Object.entries(parts)) {
      out.set(`${name}.${part}`, rowsOf(array, at, size));
      at += size;
    }
  };
  const padded = (array: StoredArray) =>
    rows === array.shape[0] ? array : joined([array, rowsOf(array, 7, rows - array.shape[0]!)]);
  for (let block = 0; block < 3; block++) {
    const hf = (part: string) => get(`model.layers.${block}.${part}`);
    const put = (name: string, array: StoredArray) => out.set(`decoder.layers.${block}.${name}`, array);
    const mixer = `decoder.layers.${block}.mamba_mixer.`;
    put("norm.weight", hf("input_layernorm.weight"));
    cut(hf("mamba.in_proj.weight"), IN, `${mixer}in_proj.weight`);
    cut(hf("mamba.conv1d.weight"), CHANNELS, `${mixer}conv1d.weight`);
    cut(hf("mamba.conv1d.bias"), CHANNELS, `${mixer}conv1d.bias`);
    for (const name of ["A_log", "D", "dt_bias", "norm.weight", "out_proj.weight"]) {
      const array = tensors.get(`model.layers.${block}.mamba.${name}`);
      if (array !== undefined) out.set(mixer + name, array); // without the gated norm there is no norm.weight
    }
    const perGroup = (HEADS / GROUPS) * HEAD;
    const qkv = Array.from({ length: GROUPS }, (_, group) => [
      rowsOf(hf("self_attn.q_proj.weight"), group * perGroup, perGroup),
      rowsOf(hf("self_attn.k_proj.weight"), group * HEAD, HEAD),
      rowsOf(hf("self_attn.v_proj.weight"), group * HEAD, HEAD),
    ]);
    put("self_attention.linear_qkv.weight", joined(qkv.flat()));
    put("self_attention.linear_proj.weight", hf("self_attn.o_proj.weight"));
    put("mlp.linear_fc1.layer_norm_weight", hf("pre_ff_layernorm.weight"));
    const halves = ["gate", "up"].map((name) => hf(`feed_forward.${name}_proj.weight`));
    put("mlp.linear_fc1.weight", joined(halves));
    put("mlp.linear_fc2.weight", hf("feed_forward.down_proj.weight"));
  }
  out.set("embedding.word_embeddings.weight", padded(get("model.embed_tokens.weight")));
  out.set("decoder.final_norm.weight", get("model.final_layernorm.weight"));
  const head = tensors.get("lm_head.weight");
  if (head !== undefined) out.set("output_layer.weight", padded(head)); // a tied model has none
  return { tensors: out, files };
}

/** As it is read. */
export const openedFalcon = (copy: Copy, changed: Checkpoint["config"] = {}): Checkpoint =>
  openedMegatron(copy, { ...RECORD, ...changed }, { dialect: "megatron" }, 512);
