/**
 * Records of Megatron-Bridge's FalconH1ModelProvider: whose they are, what they mean, what they cannot say, and the config.json
 * that is written from them.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { hf } from "../../src/families/falcon_h1/hf/dialect.ts";
import { falconH1 } from "../../src/families/falcon_h1/index.ts";
import { megatron } from "../../src/families/falcon_h1/megatron/dialect.ts";
import { FIXED_KEYS, KNOWN_KEYS } from "../../src/families/falcon_h1/megatron/keys.ts";
import { families } from "../../src/families/index.ts";
import { familyOf } from "../../src/families/recognise.ts";
import type { Config, Settings } from "../../src/families/structure.ts";
import { errorOf } from "../support/errors.ts";
import { familyGolden } from "../support/goldens.ts";
import { RECORD } from "../support/verify/falcon-copy.ts";

const json = (path: string): Config => JSON.parse(readFileSync(path, "utf8"));
const GOLDEN = json(`${familyGolden("falcon_h1")}/config.json`);
/** Fields of the real classes. */
const fields = json(new URL("../../fixtures/config-keys/megatron.json", import.meta.url).pathname) as {
  readonly [part in "config" | "falcon_h1"]: readonly string[];
};

const parse = (config: Config) => megatron.settings(config, { tensors: [] });
const settingsOf = (changed: Config = {}): Settings => parse({ ...RECORD, ...changed }).settings;
const fromHf = (changed: Config = {}) => hf.settings({ ...GOLDEN, ...changed }, { tensors: [] });

/** The record that is written for a model. */
const write = ({ settings, passthrough }: ReturnType<typeof parse>, software = "bridge", tp = 1) => {
  const model = { settings, dims: falconH1.dims(settings), layers: falconH1.layers(settings) };
  const parallelism = megatron.cut(model, { tp, pp: 1 });
  return megatron.config({ settings, passthrough, software, parallelism, dtype: "bfloat16" });
};

/** The config.json that is written for a record. */
const toHf = (record: Config): Config => {
  const { settings, passthrough } = parse(record);
  const parallelism = hf.cut({ settings, dims: falconH1.dims(settings), layers: [] }, { tp: 1, pp: 1 });
  return hf.config({ settings, passthrough, software: "hf", parallelism, dtype: "bfloat16" }).config;
};

describe("the class decides whose a record is", () => {
  const claimed = (config: Config) => familyOf(config, families)?.id;
  const { _target_, ...rest } = RECORD;
  it.each(["FalconH1ModelProvider", "other.module.FalconH1ModelProvider", _target_])("%s", (target) => {
    expect(claimed({ ...rest, _target_: target })).toBe("falcon_h1");
    expect(claimed({ _target_: target })).toBe("falcon_h1");
  });
  it.each([
    [undefined, "llama"],
    ["megatron.bridge.models.gpt_provider.GPTModelProvider", "llama"],
    ["megatron.bridge.models.falcon_h1.NotFalconH1ModelProvider", undefined],
    [{ _target_ }, undefined],
  ])("not its fields: %j", (target, family) => {
    expect(claimed({ ...rest, _target_: target })).toBe(family);
  });
});

describe("the tables against the real classes", () => {
  it("every field is in a table", () => {
    expect(fields.falcon_h1.length).toBeGreaterThan(60);
    expect([...fields.falcon_h1, ...fields.config].filter((key) => !KNOWN_KEYS.has(key))).toEqual([]);
    expect(megatron.keyRemarks(RECORD)).toEqual([]);
  });
  it("only fields are written: the class takes no others", () => {
    const known = new Set(["_target_", ...fields.falcon_h1, ...fields.config]);
    const { config } = write(fromHf());
    expect(Object.keys(config).filter((key) => !known.has(key))).toEqual([]);
    expect(Object.keys(config).length).toBeGreaterThan(40);
  });
});

describe("both ways", () => {
  it("the record of the golden model", () => {
    expect(settingsOf()).toEqual(fromHf().settings);
    const { config } = write(fromHf());
    // what is left out has the value of the class
    for (const [key, value] of Object.entries(config))
      expect([key, value]).toEqual([key, { ...RECORD, should_pad_vocab: true }[key]]);
  });
  it("config.json has the published keys, and the same values", () => {
    const written = toHf(RECORD);
    for (const [key, value] of Object.entries(written)) expect([key, value]).toEqual([key, GOLDEN[key]]);
    const missing = Object.keys(GOLDEN).filter((key) => !(key in written));
    for (const key of missing) expect(hf.isUnreadKey!(key), key).toBe(true);
    // Bridge has one key for both biases
    expect(written).toMatchObject({ mamba_proj_bias: false, projectors_bias: false });
  });
  it.each<Config>([
    { mamba_rms_norm: true },
    { mamba_d_ssm: null, mamba_n_heads: 8 },
    { rope_scaling: { rope_type: "linear", factor: 4 } },
    { tie_word_embeddings: true },
    { mamba_d_conv: 3, mamba_n_groups: 1, mamba_d_state: 256 },
    { num_key_value_heads: 4, head_dim: 16, rope_theta: 10_000, rms_norm_eps: 1e-6 },
    { key_multiplier: 1e-7, embedding_multiplier: -5.656854249492381, lm_head_multiplier: 0 },
    { ssm_multipliers: [1e-9, -1, 0, 0.5946035575013605, 3], mlp_multipliers: null },
    { max_position_embeddings: undefined, mamba_chunk_size: 256 },
  ])("config.json with %j", (changed) => {
    const parsed = fromHf(changed);
    const { config, notes } = write(parsed);
    expect(notes).toEqual([]);
    expect(parse(config).settings).toEqual(parsed.settings);
    expect(hf.settings(toHf(config), { tensors: [] }).settings).toEqual(parsed.settings);
    expect(toHf(config).mamba_chunk_size).toBe(changed.mamba_chunk_size ?? GOLDEN.mamba_chunk_size);
  });
  it("an inner width for which the class refuses `expand` is written with another", () => {
    const { config } = write(
      fromHf({ hidden_size: 72, mamba_d_head: 96, mamba_n_heads: 2, mamba_d_ssm: 192 }),
    );
    expect((Number(config.expand) * 72) % 96).toBe(0);
    expect(write(fromHf({ mamba_expand: 3 })).config.expand).toBe(3);
  });
  it("a size at which Megatron cannot run the model is told", () => {
    expect(write(fromHf(), "bridge", 2).notes).toEqual([]);
    expect(write(fromHf(), "bridge", 4).notes.join()).toMatch(/2 Mamba groups among 4/);
  });
});

describe("what is left out has the value of the class", () => {
  const minimal: Config = {
    ...{ _target_: RECORD._target_, num_layers: 2, hidden_size: 64, ffn_hidden_size: 80, vocab_size: 500 },
    ...{ num_attention_heads: 4, activation_func: RECORD.activation_func },
    ...{ num_query_groups: null, kv_channels: null, mamba_num_heads: null },
  };
  it("sizes and numbers", () => {
    expect(parse(minimal).settings).toEqual({
      ...{ pattern: "H-H-", hidden: 64, ffn: 80, vocab: 500, heads: 4, kvHeads: 4, headDim: 16, eps: 1e-5 },
      ...{
        mambaHeads: 2,
        mambaHeadDim: 64,
        groups: 1,
        state: 128,
        convKernel: 4,
        dtMin: 0,
        dtMax: "Infinity",
      },
      ...{ attentionBias: false, mlpBias: false, projectorsBias: false, mambaProjBias: false, tied: false },
      ...{ mambaRmsNorm: true, normBeforeGate: false, rotary: 16, ropeTheta: 1e11, ropeScaling: "none" },
      ...{ embeddingMultiplier: 1, lmHeadMultiplier: 1, keyMultiplier: 1 },
      ...{ attentionInMultiplier: 1, attentionOutMultiplier: 1, ssmInMultiplier: 1, ssmOutMultiplier: 1 },
      ...{ ssmMultipliers: [1, 1, 1, 1, 1], mlpMultipliers: [1, 1] },
    });
  });
  it.each(["num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "vocab_size"])(
    "%s has none",
    async (key) => {
      const error = await errorOf(async () => parse({ ...minimal, [key]: undefined }));
      expect(error).toMatchObject({
        code: "CONFIG_INVALID",
        message: expect.stringContaining(`${key} is missing`),
      });
    },
  );
  it("the activation is then gelu, which is refused", () => {
    for (const activation_func of [undefined, null, { _target_: "torch.nn.functional.gelu" }, "silu_x"])
      expect(() => settingsOf({ activation_func })).toThrow(
        expect.objectContaining({
          code: "UNSUPPORTED",
          message: expect.stringContaining("activation_func is"),
        }),
      );
  });
});

describe("a record that is refused names its key", () => {
  it.each(FIXED_KEYS.map(({ key, only }) => [key, only] as const))("%s", async (key, only) => {
    for (const value of only) expect(settingsOf({ [key]: value })).toEqual(settingsOf());
    const others = [true, false, 1.5, "x", [4, 0]].filter(
      (value) => !only.some((one) => JSON.stringify(one) === JSON.stringify(value)),
    );
    for (const value of others)
      expect(await errorOf(async () => settingsOf({ [key]: value }))).toMatchObject({
        code: "UNSUPPORTED",
        message: expect.stringContaining(`${key} is ${JSON.stringify(value)}`),
      });
  });
  it.each<[key: string, value: unknown, code: string]>([
    ["num_layers", 2 ** 40, "LIMIT_EXCEEDED"],
    ["num_layers", 2.5, "CONFIG_INVALID"],
    ["hidden_size", "64", "CONFIG_INVALID"],
    ["key_multiplier", null, "CONFIG_INVALID"],
    ["key_multiplier", "0.5", "CONFIG_INVALID"],
    ["ssm_multipliers", [1, 1], "CONFIG_INVALID"],
    ["mlp_multipliers", [1, Number.NaN], "CONFIG_INVALID"],
    ["num_query_groups", 3, "CONFIG_INVALID"],
    ["mamba_num_groups", 4, "CONFIG_INVALID"],
    ["kv_channels", 23, "CONFIG_INVALID"],
    ["rotary_base", 0, "CONFIG_INVALID"],
    ["rmsnorm", 1, "CONFIG_INVALID"],
    ["seq_len_interpolation_factor", -2, "CONFIG_INVALID"],
    ["hybrid_override_pattern", "PP", "UNSUPPORTED"],
    ["hybrid_override_pattern", "PP-", "UNSUPPORTED"],
    ["hybrid_override_pattern", 3, "UNSUPPORTED"],
  ])("%s %j", async (key, value, code) => {
    const error = await errorOf(async () => settingsOf({ [key]: value }));
    expect(error).toMatchObject({ code, message: expect.stringContaining(key.replace("num_layers", "")) });
  });
  it("a pattern of layers with both mixers is read", () => {
    expect(settingsOf({ hybrid_override_pattern: "PPP" })).toEqual(settingsOf());
  });
});

describe("what a record cannot say is refused by the key of config.json", () => {
  it.each<[key: string, config: Config]>([
    ["attention_bias", { attention_bias: true }],
    ["mlp_bias", { mlp_bias: true }],
    ["projectors_bias", { projectors_bias: true }],
    ["mamba_proj_bias", { mamba_proj_bias: true }],
    ["time_step_limit", { time_step_limit: [0.001, 0.1] }],
    ["mamba_norm_before_gate", { mamba_rms_norm: true, mamba_norm_before_gate: true }],
    ["rms_norm_eps", { mamba_rms_norm: true, rms_norm_eps: 1e-6 }],
    ["rope_theta", { rope_theta: 10_000.5 }],
    [
      "rope_scaling",
      {
        rope_scaling: {
          ...{ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
          original_max_position_embeddings: 8192,
        },
      },
    ],
    [
      "rope_scaling",
      { rope_scaling: { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64 } },
    ],
  ])("%s", async (key, config) => {
    const error = await errorOf(async () => write(fromHf(config)));
    expect(error).toMatchObject({
      code: "PLAN_IMPOSSIBLE",
      message: expect.stringContaining(key),
    });
  });
  it.each(["nemo2", "megatron"])("other software: %s", async (software) => {
    const error = await errorOf(async () => write(fromHf(), software));
    expect(error).toMatchObject({ code: "UNSUPPORTED", message: expect.stringContaining(software) });
  });
  it("the order of norm and gate means nothing without the norm", () => {
    const absent = fromHf({ mamba_norm_before_gate: undefined });
    expect(write(absent).config).toMatchObject({ rmsnorm: false, norm_before_gate: false });
  });
  it("Megatron's epsilon inside the mixer has no key in config.json", async () => {
    const record = { ...RECORD, rmsnorm: true, layernorm_epsilon: 1e-6 };
    expect(parse(record).settings).toMatchObject({ eps: 1e-6, mixerEps: 1e-5 });
    expect(await errorOf(async () => toHf(record))).toMatchObject({ code: "PLAN_IMPOSSIBLE" });
    expect(write(parse(record)).config).toMatchObject({ layernorm_epsilon: 1e-6, rmsnorm: true });
  });
});
