/** The table of config.json's keys against what Transformers reads, and every row of it against what it says. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parseJsonObject } from "../../src/core/json.ts";
import type { ObservedFacts } from "../../src/families/dialect.ts";
import { configJson } from "../../src/families/nemotron-h/hf/config-json.ts";
import { hf } from "../../src/families/nemotron-h/hf/dialect.ts";
import { NULL_REFUSED, ONLY_KEYS, UNREAD_KEYS } from "../../src/families/nemotron-h/hf/other-keys.ts";
import { SETTING_KEYS } from "../../src/families/nemotron-h/hf/setting-keys.ts";
import type { SettingKey } from "../../src/families/parts/config-json.ts";
import type { Config } from "../../src/families/structure.ts";
import { codeOf, errorOf } from "../support/errors.ts";
import { golden } from "../support/goldens.ts";

const fixture = new URL("../../fixtures/config-keys/transformers.json", import.meta.url);
interface Measured {
  readonly fields: Readonly<Record<string, { readonly null: boolean }>>;
  readonly popped: Readonly<Record<string, { readonly null: boolean }>>;
  readonly wins: Readonly<Record<string, boolean>>;
  readonly popped_by_all_configs: readonly string[];
  readonly dropped_by_all_configs: readonly string[];
  readonly read_by_the_model: readonly string[];
  readonly read_by_helpers: readonly string[];
  /** what another value of each key did to the logits of a small model */
  readonly logits: {
    readonly config: Config;
    readonly outcomes: Readonly<
      Record<string, readonly (readonly [unknown, "same" | "changed" | "refused"])[]>
    >;
  };
}
const measured = parseJsonObject(readFileSync(fixture), { nonFinite: true }) as unknown as Measured; // as the fixture is made

const configOf = (name: string): Config =>
  parseJsonObject(readFileSync(`${golden(name)}/config.json`), { nonFinite: true });
/** Layers of all kinds, and prediction steps. */
const whole: Config = {
  ...configOf("latent-moe"),
  ...{ hybrid_override_pattern: "ME*EM-EM", num_nextn_predict_layers: 2, intermediate_size: 24 },
};
const settingsOf = (config: Config, seen: ObservedFacts = { tensors: [] }) =>
  hf.settings(config, seen).settings;
const without = (config: Config, keys: readonly string[]): Config =>
  Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));

const keysOf = ({ key, others = [] }: SettingKey) => [key, ...others.map((other) => other.key)];
const ALL = [
  ...SETTING_KEYS.flatMap(keysOf),
  ...ONLY_KEYS.map(({ key }) => key),
  ...UNREAD_KEYS.flatMap(({ keys }) => keys),
];

/** Another value of each setting, under the key that the published releases have. */
const OTHERWISE: Readonly<Record<string, unknown>> = {
  ...{ pattern: "ME*EM-E-", eps: 1e-3, dtLimits: [0.01, 0.1], mtpPattern: "ME", routeNormalise: false },
  ...{ hidden: 128, vocab: 640, mambaHeads: 16, mambaHeadDim: 8, state: 8, groups: 4, convKernel: 3 },
  ...{ heads: 8, kvHeads: 2, headDim: 8, ffn: 48, experts: 24, topK: 2, moeFfn: 24, moeShared: 48 },
  ...{ latent: 16, routeGroups: 2, routeTopGroups: 2, routeScale: 2.5, mtpSteps: 1 },
};
const WORDS: Readonly<Record<string, string>> = { M: "mamba", "*": "attention", "-": "mlp", E: "moe" };
const listed = (key: string) => key === "layer_types" || key.endsWith("layers_block_type");
/** The value as a key spells it. */
const spelt = (key: string, value: unknown) =>
  listed(key) ? [...String(value)].map((letter) => WORDS[letter]) : value;

describe("against Transformers", () => {
  it.each([
    ["a field of its class", Object.keys(measured.fields)],
    ["a key that its class takes", Object.keys(measured.popped)],
    ["a key that every class takes", measured.popped_by_all_configs],
    ["a key that every class drops", measured.dropped_by_all_configs],
    ["a key that the model reads", measured.read_by_the_model],
    ["a key that masks, caches and loading read", measured.read_by_helpers],
  ])("%s is in the table", (_, keys) => {
    expect(keys.length).toBeGreaterThan(8);
    expect(keys.filter((key) => !configJson.known.has(key))).toEqual([]);
  });

  /** Only without its CUDA kernels, by mistake: how the scan is cut, and a bound of the initialisation. */
  const MISTAKES = ["chunk_size", "mamba_chunk_size", "time_step_min", "mamba_dt_min"];
  const { config, outcomes } = measured.logits;
  const changed = Object.entries(outcomes).flatMap(([key, tried]) =>
    tried.filter(([, outcome]) => outcome === "changed").map(([value]) => [key, value] as const),
  );

  it.each(changed.filter(([key]) => !MISTAKES.includes(key)))(
    "%s at %j makes other logits: other settings, or refused",
    async (key, value) => {
      const other = { ...config, [key]: value };
      const refused = await codeOf(() => settingsOf(other));
      if (refused === "no error") expect(settingsOf(other)).not.toEqual(settingsOf(config));
      else expect(["UNSUPPORTED", "CONFIG_INVALID"]).toContain(refused);
    },
  );

  it("keys of all kinds were tried, and some made other logits", () => {
    expect(Object.keys(outcomes).length).toBeGreaterThan(80);
    expect(changed.map(([key]) => key)).toEqual(
      expect.arrayContaining(["is_causal", "mamba_conv_bias", "layer_norm_epsilon", "layer_types"]),
    );
  });

  it("no key is in two rows", () => {
    expect(ALL.filter((key, i) => ALL.indexOf(key) !== i)).toEqual([]);
  });

  it("null is refused for the same keys", () => {
    const refused = Object.entries({ ...measured.fields, ...measured.popped })
      .filter(([key, taken]) => !taken.null && key !== "hybrid_override_pattern") // taken beside a list of layers
      .map(([key]) => key);
    expect([...NULL_REFUSED].sort()).toEqual(refused.sort());
  });

  it("of two keys of a setting it reads the same", () => {
    for (const { others = [] } of SETTING_KEYS) {
      for (const { key, ignored } of others) {
        // shapes hold this one to the truth
        if (key === "attention_head_dim" || measured.wins[key] === undefined) continue;
        expect(measured.wins[key], key).toBe(ignored !== true);
      }
    }
    expect(Object.keys(measured.wins).length).toBeGreaterThan(8);
  });
});

describe.each(SETTING_KEYS.map((row) => [row.setting, row] as const))("the setting %s", (name, row) => {
  const base = without(whole, keysOf(row));
  const settings = settingsOf(whole);
  const value = OTHERWISE[name];

  it.each(keysOf(row))("is read from %s alone", async (key) => {
    const config = { ...base, [key]: spelt(key, value) };
    if (row.others?.some((other) => other.key === key && other.ignored)) {
      const error = await errorOf(async () => settingsOf(config));
      expect(error.code).toBe("CONFIG_INVALID");
      for (const said of [key, row.key, "0.001", "0.00001"]) expect(error.message).toContain(said);
      return;
    }
    expect(settingsOf(config)).not.toEqual(settings);
  });

  it.each(row.others?.map(({ key }) => key) ?? [])(
    "two values, one of them in %s, are refused",
    async (key) => {
      const config = {
        ...whole,
        ...Object.fromEntries((row.others ?? []).map((other) => [other.key, undefined])),
      };
      const first = config[row.key] ?? (name === "dtLimits" ? [0, 1] : undefined);
      const error = await errorOf(async () =>
        settingsOf({ ...config, [row.key]: first, [key]: spelt(key, value) }),
      );
      expect(error.code).toBe("CONFIG_INVALID");
      expect(error.message).toContain(`${key} is`);
      expect(error.message).toContain(`${row.key} is`);
      expect(error.next).toContain("same value");
    },
  );

  it("a value of another kind is refused", async () => {
    const config = { ...base, [row.key]: { not: "this" } };
    expect(await codeOf(() => settingsOf(config))).toBe("CONFIG_INVALID");
  });

  it("null is read as absent, or refused where Transformers would take a value", async () => {
    const said = { ...whole, [row.key]: null };
    const absent = without(whole, [row.key]);
    if (row.absent === undefined || row.nullable === true) {
      const [a, b] = [await codeOf(() => settingsOf(said)), await codeOf(() => settingsOf(absent))];
      expect(a).toBe(b);
      if (a === "no error") expect(settingsOf(said)).toEqual(settingsOf(absent));
    } else expect(await codeOf(() => settingsOf(said))).toBe("CONFIG_INVALID");
  });
});

describe.each(ONLY_KEYS.map((row) => [row.key, row] as const))("%s", (key, row) => {
  const others = [true, false, null, 0, 2, "gelu", "x", [1]].filter((value) => !row.only.includes(value));
  const at = (value: unknown) => settingsOf({ ...whole, [key]: value });

  it.each(row.only)("at %s is read", (value) => expect(at(value)).toEqual(settingsOf(whole)));

  it.each(others)("at %s is refused", async (value) => {
    const error = await errorOf(async () => at(value));
    expect(error.code).toBe("UNSUPPORTED");
    for (const text of [error.message, error.next]) expect(text).toContain(JSON.stringify(row.only[0]));
    expect(error.message).toContain(`${key} is ${JSON.stringify(value)}`);
    expect(error.at).toEqual({ file: "config.json" });
    expect(error.next).not.toContain("--verify");
  });

  it.runIf(row.on !== undefined)("does not matter to a model without such layers", () => {
    const dense = { ...configOf("tiny"), hybrid_override_pattern: "M-M-M-M-M" };
    expect(settingsOf({ ...dense, [key]: others[0] })).toEqual(settingsOf(dense));
  });
});

it("keys that no engine reads change no setting, whatever they say", () => {
  const compared = ["num_hidden_layers"];
  const keys = UNREAD_KEYS.flatMap((row) => row.keys).filter((key) => !compared.includes(key));
  for (const value of [12345, "x", null, true, [1]]) {
    for (const key of keys) expect(settingsOf({ ...whole, [key]: value }), key).toEqual(settingsOf(whole));
  }
});

describe("weights that the config names", () => {
  const at = (name: unknown, files: readonly string[]) =>
    codeOf(() => settingsOf({ ...whole, transformers_weights: name }, { tensors: [], files }));
  const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

  it.each<[unknown, readonly string[], string]>([
    ["model.safetensors", ["model.safetensors"], "no error"],
    ["model.safetensors.index.json", shards, "no error"],
    [null, shards, "no error"],
    ["other.safetensors", ["model.safetensors"], "CONFIG_INVALID"],
    ["other.safetensors.index.json", shards, "CONFIG_INVALID"],
    ["model-00001-of-00002.safetensors", shards, "CONFIG_INVALID"],
    ["model.safetensors.index.json", ["model.safetensors"], "CONFIG_INVALID"],
    ["adapter_model.bin", ["model.safetensors"], "CONFIG_INVALID"],
    [7, ["model.safetensors"], "CONFIG_INVALID"],
  ])("%s, where %s are read: %s", async (name, files, code) => expect(await at(name, files)).toBe(code));
});

describe("what is said beside the settings", () => {
  const rules = (config: Config) => hf.keyRemarks(config).map(({ rule }) => rule);

  it.each(["tiny", "tiny-t5", "sharded", "moe", "latent-moe", "trained"])("nothing of %s", (name) => {
    expect(hf.keyRemarks(configOf(name))).toEqual([]);
  });

  it("unknown keys, nulls that Transformers refuses, another class", () => {
    const [remark] = hf.keyRemarks({ ...whole, attn_logit_softcapping: 30, rope_theta: 1 });
    expect(remark).toMatchObject({ rule: "config-key-unknown", severity: "warning" });
    expect(remark?.message).toMatch(/attn_logit_softcapping$/);
    expect(rules({ ...whole, use_cache: null })).toEqual(["config-null"]);
    expect(rules({ ...whole, moe_latent_size: null, sliding_window: null, dtype: null })).toEqual([]);
    expect(rules({ ...whole, architectures: ["NemotronHForSequenceClassification"] })).toEqual([
      "architectures-other",
    ]);
  });
});
