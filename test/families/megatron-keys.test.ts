/** The tables of a Megatron record's keys against the classes of real software, and every row against what it says. */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { gatedNorm, rmsNorm } from "../../kernels/index.ts";
import type { Backend, Region } from "../../kernels/kernel.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { dims } from "../../src/families/nemotron-h/dims.ts";
import { forward } from "../../src/families/nemotron-h/forward.ts";
import { hf } from "../../src/families/nemotron-h/hf/dialect.ts";
import { megatron, megatronRanks } from "../../src/families/nemotron-h/megatron/dialect.ts";
import { FIELDS, namesOf } from "../../src/families/nemotron-h/megatron/fields.ts";
import { FIXED_KEYS } from "../../src/families/nemotron-h/megatron/keys.ts";
import { KNOWN_KEYS, STRUCTURE_KEYS } from "../../src/families/nemotron-h/megatron/remarks.ts";
import { UNREAD_KEYS } from "../../src/families/nemotron-h/megatron/unread-keys.ts";
import { layers } from "../../src/families/nemotron-h/settings.ts";
import { NOTED_KEYS } from "../../src/families/parts/megatron/fixed-keys.ts";
import type { Config } from "../../src/families/structure.ts";
import { codeOf, errorOf } from "../support/errors.ts";
import { golden } from "../support/goldens.ts";

const url = (path: string) => new URL(`../../fixtures/${path}`, import.meta.url);
const json = (path: string) => JSON.parse(readFileSync(url(path), "utf8"));
const listed: {
  readonly config: readonly string[];
  readonly arguments_of_the_builder: readonly string[];
  readonly bridge: readonly string[];
} = json("config-keys/megatron.json");
const records = new Map<string, Config>(
  readdirSync(url("nemotron-h/megatron")).map((file) => [file, json(`nemotron-h/megatron/${file}`).config]),
);

/** A record of Megatron-Bridge with layers of all kinds and two prediction steps. */
const whole: Config = {
  ...records.get("bridge-moe.json"),
  ...{ mtp_num_layers: 2, mtp_hybrid_override_pattern: "*E" },
};
const settingsOf = (config: Config) => megatron.settings(config, { tensors: [] }).settings;

describe("against the real classes", () => {
  it.each([
    ["a field of TransformerConfig or ModelParallelConfig", listed.config, 300],
    ["an argument that Megatron-LM passes to the builder of the model", listed.arguments_of_the_builder, 30],
    ["a field of Megatron-Bridge's provider", listed.bridge, 30],
  ])("%s is in a table", (_, keys, least) => {
    expect(keys.length).toBeGreaterThan(least);
    expect(keys.filter((key) => !KNOWN_KEYS.has(key))).toEqual([]);
  });

  it("no key is in two rows", () => {
    const rows = [
      ...STRUCTURE_KEYS,
      ...FIELDS.flatMap(namesOf),
      ...[...FIXED_KEYS, ...NOTED_KEYS].map(({ key }) => key),
      ...UNREAD_KEYS.flatMap(({ keys }) => keys),
    ];
    expect(rows.filter((key, i) => rows.indexOf(key) !== i)).toEqual([]);
  });

  it.each([...records.keys()])("%s, as real software wrote it, has no other key", (file) => {
    expect(megatron.keyRemarks(records.get(file)!)).toEqual([]);
  });

  it.each(["nemo2-tiny", "nemo2-tp2", "megatron-bridge-moe", "megatron-tp2", "nemo1-tiny.nemo"])(
    "%s has no other key",
    async (name) => {
      const { config, dialect } = await openCheckpoint(golden(name));
      expect([megatron, megatronRanks].find(({ id }) => id === dialect)!.keyRemarks(config)).toEqual([]);
    },
  );

  it.each(["nemo2", "bridge", "megatron"])("what is written for %s has no other key", (software) => {
    const settings = settingsOf(whole);
    const model = { settings, dims: dims(settings), layers: layers(settings) };
    const dialect = software === "megatron" ? megatronRanks : megatron;
    const shards = dialect.cut(model, { tp: 1, pp: 1 });
    const { config } = dialect.config({
      settings,
      passthrough: {},
      software,
      parallelism: shards,
      dtype: "bfloat16",
    });
    expect(dialect.keyRemarks(config)).toEqual([]);
    expect(dialect.settings(config, { tensors: [], vocab: 500 }).settings).toEqual(settings);
  });
});

describe.each(FIXED_KEYS.map((row) => [row.key, row] as const))("%s", (key, row) => {
  const at = (value: unknown, config = whole) => settingsOf({ ...config, [key]: value });
  const others = (row.never ?? [true, 1.5, 0.5, "x", [4, 0]]).filter((value) => !row.only.includes(value));

  it.each(row.only.map((value) => [value]))("at %s is read", (value) => {
    expect(at(value)).toEqual(settingsOf(whole));
  });

  it.each(others.map((value) => [value]))("at %s is refused", async (value) => {
    const error = await errorOf(async () => at(value));
    expect(error.code).toBe("UNSUPPORTED");
    expect(error.message).toContain(`${key} is ${JSON.stringify(value)}`);
    for (const text of [error.message, error.next]) expect(text).toContain(JSON.stringify(row.only[0]));
    expect(error.next).not.toContain("--verify");
  });

  it.runIf(row.on !== undefined)("does not matter to a model without such layers", () => {
    const { mtp_num_layers, mtp_hybrid_override_pattern, ...rest } = whole;
    const dense = { ...rest, hybrid_layer_pattern: "M-M-M-M-" };
    expect(at(others[0], dense)).toEqual(settingsOf(dense));
  });
});

const computed = FIELDS.filter(({ does }) => does !== undefined);
const computedNames = computed.flatMap(namesOf);

it.each(computed.flatMap((field) => namesOf(field).map((name) => [name, field] as const)))(
  "%s at another value is refused",
  async (name, { otherwise }) => {
    const value = typeof otherwise === "boolean" ? !otherwise : "other";
    const error = await errorOf(async () => settingsOf({ ...without(whole, computedNames), [name]: value }));
    expect(error.code).toBe("UNSUPPORTED");
    expect(error.message).toContain(`${name} is ${JSON.stringify(value)}`);
  },
);

it.each([
  ["moe_router_score_function", "softmax"],
  ["moe_router_enable_expert_bias", "false"],
] as const)("a record with experts that does not say %s means %s", async (key, means) => {
  const error = await errorOf(async () => settingsOf(without(whole, [key])));
  expect(error).toMatchObject({ code: "UNSUPPORTED", message: expect.stringContaining(means) });
});

describe("keys that change only how exactly the function is computed", () => {
  it.each(NOTED_KEYS.map(({ key, usual }) => [key, usual] as const))("%s is told", (key, usual) => {
    const told = { ...whole, [key]: "hybrid" };
    expect(settingsOf(told)).toEqual(settingsOf(whole));
    expect(megatron.keyRemarks(told)).toMatchObject([
      { rule: "config-precision", message: expect.stringContaining(`${key} is "hybrid"`) },
    ]);
    for (const value of usual) expect(megatron.keyRemarks({ ...whole, [key]: value })).toEqual([]);
  });
});

it("keys on which nothing depends change no setting, whatever they say", () => {
  // these say whose record it is
  const named = ["_target_", "target", "nemo_version"];
  const keys = UNREAD_KEYS.flatMap((row) => row.keys).filter((key) => !named.includes(key));
  for (const value of [3, "x", null, true]) {
    for (const key of keys) expect(settingsOf({ ...whole, [key]: value }), key).toEqual(settingsOf(whole));
  }
});

it("a key that no table has is named", () => {
  const [remark] = megatron.keyRemarks({ ...whole, attention_logit_softcap: 30 });
  expect(remark).toMatchObject({ rule: "config-key-unknown", severity: "warning" });
  expect(remark?.message).toMatch(/: attention_logit_softcap$/);
});

describe("the epsilon inside a Mamba layer is 1e-5 in Megatron, whatever its config says", () => {
  it("another one holds for all other norms, and no config.json says both", async () => {
    const settings = settingsOf({ ...whole, layernorm_epsilon: 1e-6 });
    expect(settings).toEqual({ ...settingsOf(whole), eps: 1e-6, mixerEps: 1e-5 });
    expect(dims(settings)).toMatchObject({ eps: 1e-6, mixerEps: 1e-5 });
    const shards = megatron.cut(
      { settings, dims: dims(settings), layers: layers(settings) },
      { tp: 1, pp: 1 },
    );
    const described = {
      settings,
      passthrough: {},
      software: "bridge",
      parallelism: shards,
      dtype: "bfloat16",
    };
    expect(await codeOf(() => hf.config(described))).toBe("PLAN_IMPOSSIBLE");
    expect(settingsOf(megatron.config(described).config)).toEqual(settings);
  });

  it("the forward pass takes each where it belongs", async () => {
    const d = dims(settingsOf({ ...whole, layernorm_epsilon: 1e-6 }));
    const epsilons = new Map<string, number>();
    // it notes what a kernel is told, and runs none
    const backend = {
      run: async ({ id }: { id: string }, { eps }: { eps: number }) => void epsilons.set(id, eps),
    } as unknown as Backend;
    for (const stage of forward.block("mamba", d)) {
      if (stage.op === "kernel") await stage.run(backend, d, 1, [], null as unknown as Region);
    }
    expect(epsilons.get(rmsNorm.id)).toBe(1e-6);
    expect(epsilons.get(gatedNorm.id)).toBe(1e-5);
  });

  it("a model without such layers has one", () => {
    const { mtp_num_layers, mtp_hybrid_override_pattern, ...rest } = whole;
    const other = settingsOf({ ...rest, hybrid_layer_pattern: "*-*-*-*-", layernorm_epsilon: 1e-6 });
    expect(other).toMatchObject({ eps: 1e-6 });
    expect(other).not.toHaveProperty("mixerEps");
  });

  it("a model with another one has no record there", async () => {
    const tiny = JSON.parse(
      readFileSync(`${golden("tiny")}/config.json`, "utf8").replace("Infinity", "1e30"),
    );
    const config = { ...tiny, layer_norm_epsilon: 1e-6, rms_norm_eps: 1e-6 };
    const { settings, passthrough } = hf.settings(config, { tensors: [] });
    const shards = megatron.cut(
      { settings, dims: dims(settings), layers: layers(settings) },
      { tp: 1, pp: 1 },
    );
    const described = { settings, passthrough, software: "nemo2", parallelism: shards, dtype: "bfloat16" };
    expect(await codeOf(() => megatron.config(described))).toBe("PLAN_IMPOSSIBLE");
  });
});

function without(config: Config, keys: readonly string[]): Config {
  const silent = ["moe_router_score_function", "moe_router_enable_expert_bias"];
  const drop = keys === computedNames ? keys.filter((key) => !silent.includes(key)) : keys;
  return Object.fromEntries(Object.entries(config).filter(([key]) => !drop.includes(key)));
}
