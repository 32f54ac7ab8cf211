/** Config records of Megatron's GPTModel: what they mean, what cannot be written, and whose they are. */
import { describe, expect, it } from "vitest";
import { families } from "../../src/families/index.ts";
import { dialectOf, familyOf } from "../../src/families/recognise.ts";
import type { Config, Settings } from "../../src/families/structure.ts";

const llama = families.find(({ id }) => id === "llama")!;

/** A record of Megatron-Bridge with the given keys changed. */
const bridge = (changed: Config = {}): Config => ({
  _target_: "megatron.bridge.models.gpt_provider.GPTModelProvider",
  ...{ num_layers: 2, hidden_size: 64, ffn_hidden_size: 112, num_attention_heads: 4, num_query_groups: 2 },
  ...{ kv_channels: 16, layernorm_epsilon: 1e-5, vocab_size: 500, normalization: "RMSNorm" },
  ...{ gated_linear_unit: true, activation_func: { _target_: "torch.nn.functional.silu" } },
  ...{ position_embedding_type: "rope", rotary_base: 10_000, share_embeddings_and_output_weights: false },
  ...{ mamba_num_groups: 8, mamba_state_dim: 128, mamba_head_dim: 64 },
  ...changed,
});

const megatron = dialectOf(llama, "megatron");
const settingsOf = (config: Config): Settings => megatron.settings(config, { tensors: [] }).settings;

const write = (settings: Settings, software: "nemo2" | "bridge" | "megatron") => {
  const structure = { settings, dims: llama.dims(settings), layers: llama.layers(settings) };
  const parallelism = megatron.cut(structure, { tp: 1, pp: 1 });
  return megatron.config({ settings, passthrough: {}, software, parallelism, dtype: "bfloat16" }).config;
};

describe("which family a record belongs to", () => {
  const claimed = (config: Config) => familyOf(config, families)?.id;
  it("sizes of Mamba, which every record has, decide nothing", () => {
    expect(claimed(bridge())).toBe("llama");
    expect(claimed(bridge({ hybrid_layer_pattern: "M-*-" }))).toBe("nemotron-h");
    expect(claimed(bridge({ hybrid_layer_pattern: "*-|*-" }))).toBe("llama");
    for (const pattern of ["**--", "-*-*", "*-*"])
      expect(claimed(bridge({ hybrid_layer_pattern: pattern })), pattern).toBeUndefined();
  });
  it("another activation, norm or kind of position is no family's", () => {
    expect(claimed(bridge({ activation_func: { _target_: "torch.nn.functional.gelu" } }))).toBeUndefined();
    expect(claimed(bridge({ normalization: "LayerNorm" }))).toBeUndefined();
    expect(claimed(bridge({ position_embedding_type: "learned_absolute" }))).toBeUndefined();
  });
  it.each([
    "megatron.bridge.models.glm.glm45_provider.GLMMoEModelProvider",
    "nemo.collections.llm.gpt.model.gemma2.Gemma2Config",
    "megatron.bridge.models.qwen_vl.qwen25_vl_provider.Qwen25VLModelProvider",
    "megatron.bridge.models.qwen_vl.qwen35_vl_provider.Qwen35TokenClassificationModelProvider",
    "megatron.bridge.models.llama_nemotron.llama_nemotron_provider.LlamaNemotronHeterogeneousProvider",
  ])("%s is another model with the same keys", (target) => {
    expect(claimed(bridge({ _target_: target }))).toBeUndefined();
  });
  it.each([
    "megatron.bridge.models.llama.llama_provider.Llama31ModelProvider8B",
    "megatron.bridge.models.qwen.qwen_provider.Qwen2ModelProvider7B",
    "megatron.bridge.models.qwen.qwen_provider.Qwen25ModelProvider7B",
    "megatron.bridge.models.mistral.mistral_provider.MistralModelProvider",
    "nemo.collections.llm.gpt.model.qwen3.Qwen3Config8B",
  ])("%s is a model of blocks", (target) => {
    expect(claimed(bridge({ _target_: target }))).toBe("llama");
  });
  it("a config that two families claim is refused", () => {
    const twice = [...families, { ...llama, id: "other" }];
    expect(() => familyOf(bridge(), twice)).toThrow(/llama and other both claim/);
  });
});

describe("what a record means", () => {
  it("a sized class of NeMo 2 gives what its arguments leave out", () => {
    const config = { _target_: "nemo.collections.llm.gpt.model.llama.Llama32Config1B", vocab_size: 128_256 };
    expect(familyOf(config, families)?.id).toBe("llama");
    expect(settingsOf(config)).toMatchObject({
      ...{ pattern: "*-".repeat(16), hidden: 2048, ffn: 8192, heads: 32, kvHeads: 8, headDim: 64, eps: 1e-5 },
      ...{
        tied: true,
        ropeTheta: 500_000,
        ropeScaling: "llama3",
        ropeFactor: 32,
        ropeOriginalPositions: 8192,
      },
    });
  });
  it("NeMo counts the tokens of a window, Megatron those before the present one", () => {
    expect(settingsOf(bridge({ window_size: [23, 0] }))).toMatchObject({ pattern: "s-s-", window: 24 });
    const nemo = {
      ...bridge({ window_size: [24, 0] }),
      _target_: "nemo.collections.llm.gpt.model.mistral.MistralConfig7B",
    };
    expect(settingsOf(nemo)).toMatchObject({ window: 24 });
    expect(settingsOf(bridge({ window_size: [-1, 0] }))).toMatchObject({ pattern: "*-*-" });
    const settings = settingsOf(nemo);
    expect(write(settings, "nemo2").window_size).toEqual([24, 0]);
    expect(write(settings, "bridge").window_size).toEqual([23, 0]);
  });
  it("without grouped queries the number of groups means nothing", () => {
    const args = { ...bridge({ group_query_attention: false, num_query_groups: 1 }), _target_: undefined };
    expect(settingsOf(args)).toMatchObject({ kvHeads: 4 });
  });
  it("weights without a head are tied, whatever the class says", () => {
    const tensors = [{ name: "embedding.word_embeddings.weight", shape: [512, 64] }];
    expect(megatron.settings(bridge(), { tensors }).settings.tied).toBe(true);
  });
  it.each([
    ["num_layers", 2 ** 40, "LIMIT_EXCEEDED"],
    ["num_layers", 2.5, "CONFIG_INVALID"],
    ["hidden_size", "64", "CONFIG_INVALID"],
    ["num_attention_heads", 3, "CONFIG_INVALID"],
  ])("%s %s is refused", (key, value, code) => {
    expect(() => settingsOf(bridge({ [key]: value }))).toThrow(expect.objectContaining({ code }));
  });
  it.each([
    ["([0]*1+[1]*1)", "*-*E"],
    ["[1,0]", "*E*-"],
    [[0, 1], "*-*E"],
    [2, "*E*-"],
  ])("experts in the layers %j", (frequency, pattern) => {
    const moe = { num_moe_experts: 4, moe_router_topk: 2, moe_layer_freq: frequency };
    expect(familyOf(bridge(moe), families)?.id).toBe("mixtral");
    const mixtral = dialectOf(families.find(({ id }) => id === "mixtral")!, "megatron");
    expect(mixtral.settings(bridge(moe), { tensors: [] }).settings.pattern).toBe(pattern);
  });
  it.each(["[1]", "([1]*9999+[1]*9999)", "os.system('x')"])("moe_layer_freq %j is refused", (frequency) => {
    const moe = { num_moe_experts: 4, moe_router_topk: 2, moe_layer_freq: frequency };
    const mixtral = dialectOf(families.find(({ id }) => id === "mixtral")!, "megatron");
    expect(() => mixtral.settings(bridge(moe), { tensors: [] })).toThrow(/moe_layer_freq/);
  });
  it.each([
    ["rotary_interleaved", true],
    ["no_rope_freq", 4],
    ["window_attn_skip_freq", 2],
    ["glu_linear_offset", 1],
    ["mtp_num_layers", 1],
  ])("%s %s is refused by name", (key, value) => {
    expect(() => settingsOf(bridge({ [key]: value }))).toThrow(
      expect.objectContaining({ code: "UNSUPPORTED", message: expect.stringContaining(key) }),
    );
  });
});

describe("what Megatron cannot say", () => {
  const plain = settingsOf(bridge());
  const llama3 = {
    ...{
      ropeScaling: "llama3",
      ropeFactor: 8,
      ropeLowFactor: 1,
      ropeHighFactor: 4,
      ropeOriginalPositions: 8192,
    },
  };
  it("other numbers of Llama 3.1's scaling than Megatron's own, but NeMo 2 can", () => {
    expect(write({ ...plain, ...llama3 }, "bridge")).toMatchObject({
      rope_scaling: true,
      rope_scaling_factor: 8,
    });
    const other = { ...plain, ...llama3, ropeHighFactor: 5 };
    expect(write(other, "nemo2")).toMatchObject({ high_freq_factor: 5 });
    for (const software of ["bridge", "megatron"] as const)
      expect(() => write(other, software)).toThrow(expect.objectContaining({ code: "PLAN_IMPOSSIBLE" }));
  });
  it.each([
    ["a window in some layers", { pattern: "*-s-", window: 8 }],
    ["a bias of attention's output alone", { qkvBias: true, outBias: true }],
  ])("%s", (_, changed) => {
    expect(() => write({ ...plain, ...changed }, "bridge")).toThrow(
      expect.objectContaining({ code: "PLAN_IMPOSSIBLE" }),
    );
  });
  it("every record that is written is read as the same settings", () => {
    const variants: Settings[] = [
      plain,
      { ...plain, ...llama3 },
      { ...plain, ropeScaling: "linear", ropeFactor: 4 },
      { ...plain, pattern: "s-s-", window: 8 },
      { ...plain, qkvBias: true, outBias: true, mlpBias: true },
      { ...plain, qkvBias: true, tied: true, qkNorm: true, rotary: 8 },
    ];
    for (const settings of variants)
      for (const software of ["nemo2", "bridge", "megatron"] as const)
        expect(settingsOf(write(settings, software)), software).toEqual(settings);
  });
});
