/**
 * Families with Mamba beside attention: FP8 with several scales, formats that cannot have them, and single faults, each of
 * which must be `different` at the right layer. Mathematics that both sides share cannot be seen by comparing two
 * checkpoints: it is changed on purpose, and held to the logits that Transformers recorded.
 */
import { readFileSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { Distance } from "../../src/core/distance.ts";
import type { Dims } from "../../src/families/structure.ts";
import { runForwardPass } from "../../src/inference/forward-pass.ts";
import { errorOf } from "../support/errors.ts";
import { arraysOf, familyGolden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { recorded, wasm } from "../support/small-model.ts";
import { copyOf, Editor, opened } from "../support/verify/planted.ts";
import { expectClean, expectNamed, keepScore } from "../support/verify/score.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const NAMES = ["bamba", "falcon_h1", "granitemoehybrid"] as const;
type Name = (typeof NAMES)[number];

const score = keepScore("faults in hybrid families");
const backend = await wasm();
afterAll(() => backend[Symbol.asyncDispose]());

const copies = {
  bamba: await copyOf(familyGolden("bamba")),
  falcon_h1: await copyOf(familyGolden("falcon_h1")),
  granitemoehybrid: await copyOf(familyGolden("granitemoehybrid")),
};

describe.each(NAMES)("%s", (name) => {
  const source = familyGolden(name);

  it("as FP8 with a scale for each row, every control caught", async () => {
    const options = { ...QUICK, to: "hf", dtype: "fp8-e4m3", quantScales: "row" } as const;
    const { verification } = await convert(source, `${work}/${name}-row`, options);
    expectClean(score, verification!, "within");
    const { controls } = metricsWith(verification!, "logits", "controls");
    expect(controls.length).toBeGreaterThan(30);
    expect(controls.filter(({ caught }) => caught !== true)).toEqual([]);
  });

  // Falcon-H1 has one in Bridge
  const absent = ["nemo2", "megatron", ...(name === "falcon_h1" ? [] : ["bridge"])];
  it.each(absent)("has no form in %s, and the error says why", async (to) => {
    const error = await errorOf(() => convert(source, `${work}/${name}-${to}`, { to }));
    expect(error).toMatchObject({ code: "UNSUPPORTED", message: expect.stringMatching(/Megatron/) });
  });
});

it("experts in one tensor with one scale are reported, and blocks of them are refused", async () => {
  const source = familyGolden("granitemoehybrid");
  const warningsOf = async (quantScales: "tensor" | "row" | "block") => {
    const { warnings } = await plan(source, `${work}/planned`, { to: "hf", dtype: "fp8-e4m3", quantScales });
    return warnings.join();
  };
  const said = /have one scale: vLLM cannot read it there/;
  expect(await warningsOf("tensor")).toMatch(said);
  expect(await warningsOf("row")).not.toMatch(said);
  expect(await errorOf(() => warningsOf("block"))).toMatchObject({
    code: "PLAN_IMPOSSIBLE",
    message: expect.stringMatching(/a stack of 6 matrices/),
  });
});

it.each([
  ["tensor", ["vLLM", "Transformers"]],
  ["row", ["Transformers"]],
] as const)(
  "with a scale for each %s `check` says which engines misread experts in one tensor: %j",
  async (quantScales, engines) => {
    const out = `${work}/granite-check-${quantScales}`;
    const options = { dtype: "fp8-e4m3", quantScales, verify: "off" } as const;
    await convert(familyGolden("granitemoehybrid"), out, { to: "hf", ...options });
    const { findings, servable } = await check(out);
    expect(servable).toBe(quantScales === "row");
    expect(findings.map(({ rule }) => rule)).toEqual(engines.map(() => "engine-experts"));
    expect(findings.map(({ message }) => message.split(" ")[0])).toEqual(engines);
  },
);

it.each(["granitemoehybrid", "qwen2", "bamba"] as const)(
  "FP8 of %s leaves the head out of the quantised modules, tied or not",
  async (name) => {
    const out = `${work}/${name}-head`;
    await convert(familyGolden(name), out, { to: "hf", dtype: "fp8-e4m3", verify: "off" });
    const { quantization_config } = JSON.parse(readFileSync(`${out}/config.json`, "utf8"));
    expect(quantization_config.ignore.filter((module: string) => module === "lm_head")).toEqual(["lm_head"]);
  },
);

it.each([
  ["llama", 4],
  ["qwen3", 4],
  ["bamba", 1],
  ["falcon_h1", 3],
  ["granitemoehybrid", 1], // without positions
] as const)(
  "scales of %s's KV cache have the names that engines read, in %d layers",
  async (name, layers) => {
    const out = `${work}/${name}-cache`;
    const options = { dtype: "fp8-e4m3", kvCache: "fp8", calibrate: true, tokens: 8, verify: "off" } as const;
    await convert(familyGolden(name), out, { to: "hf", ...options });
    const names = [...(await arraysOf(`${out}/model.safetensors`)).keys()];
    const scales = names.filter((one) => /\.k[^_]*_scale$/.test(one));
    expect(scales).toHaveLength(layers);
    for (const scale of scales) expect(scale).toMatch(/\.self_attn\.k_scale$/);
  },
);

interface Fault {
  readonly name: Name;
  /** of ours: a block is two layers */
  readonly layer: number;
  readonly plant: (e: Editor) => void;
}

const mamba = (block: number, part: string) => `model.layers.${block}.mamba.${part}`;
const expertsOf = (block: number, part: string) =>
  `model.layers.${block}.block_sparse_moe.${part}_linear.weight`;

/** Rows of in_proj with 2 groups of 16 states: z, x, B, C, dt. */
const B_OF = { bamba: 256, granitemoehybrid: 256, falcon_h1: 192 } as const;

const FAULTS: Readonly<Record<string, Fault>> = {};
const fault = (what: string, name: Name, layer: number, plant: Fault["plant"]) =>
  Object.assign(FAULTS, { [`${name}: ${what}`]: { name, layer, plant } });

for (const name of NAMES) {
  const inProj = mamba(1, "in_proj.weight");
  const group = B_OF[name];
  fault("B and C exchanged", name, 2, (e) => e.swapRows(inProj, group, group + 32, 32));
  fault("z and x exchanged", name, 2, (e) => e.swapRows(inProj, 0, group / 2, group / 2));
  fault("taps of the convolution reversed", name, 0, (e) =>
    e.columns(mamba(0, "conv1d.weight"), (tap, taps) => taps - 1 - tap),
  );
  fault("heads of dt_bias reversed", name, 2, (e) =>
    e.rows(mamba(1, "dt_bias"), (head, heads) => heads - 1 - head),
  );
  fault("a sign of A_log", name, 2, (e) =>
    e.values(mamba(1, "A_log"), (value, i) => (i === 0 ? -value : value)),
  );
  const block = name === "falcon_h1" ? 1 : 2;
  fault("k and v exchanged", name, 2 * block, (e) =>
    e.swap(`model.layers.${block}.self_attn.k_proj.weight`, `model.layers.${block}.self_attn.v_proj.weight`),
  );
}
for (const name of ["bamba", "falcon_h1"] as const)
  fault("gate and up exchanged", name, 3, (e) =>
    e.swap("model.layers.1.feed_forward.gate_proj.weight", "model.layers.1.feed_forward.up_proj.weight"),
  );
const GRANITE = "granitemoehybrid";
fault("gate and up of the shared MLP exchanged", GRANITE, 5, (e) =>
  e.swapRows("model.layers.2.shared_mlp.input_linear.weight", 0, 48, 48),
);
fault("gate and up of an expert exchanged", GRANITE, 1, (e) =>
  // [experts, 2 * 24, 64]: rows of the first axis are whole experts, so columns are elements of one
  e.columns(expertsOf(0, "input"), (i, all) => (i + all / 2) % all),
);
fault("two experts exchanged", GRANITE, 3, (e) => e.swapRows(expertsOf(1, "output"), 1, 4, 1));
fault("two rows of the router exchanged", GRANITE, 7, (e) =>
  e.swapRows("model.layers.3.block_sparse_moe.router.layer.weight", 0, 3, 1),
);

describe("a fault in the weights is different, at its layer", () => {
  it.each(Object.entries(FAULTS))("%s", async (_, { name, layer, plant }) => {
    const editor = new Editor(copies[name]);
    plant(editor);
    expectNamed(
      score,
      await verifyCheckpoints(await opened(copies[name]), await opened(editor.copy), QUICK),
      layer,
    );
  });
});

describe("a multiplier that the config changes is different, by its key", () => {
  const keys = {
    granitemoehybrid: [
      "embedding_multiplier",
      "attention_multiplier",
      "residual_multiplier",
      "logits_scaling",
    ],
    falcon_h1: [
      ...["embedding_multiplier", "lm_head_multiplier", "key_multiplier"],
      ...["attention_in_multiplier", "attention_out_multiplier", "ssm_in_multiplier", "ssm_out_multiplier"],
      ...["ssm_multipliers", "mlp_multipliers"],
    ],
    bamba: ["rope_theta", "rms_norm_eps"],
  } as const;
  const cases = NAMES.flatMap((name) => keys[name].map((key) => [name, key] as const));

  it.each(cases)("%s: %s", async (name, key) => {
    const editor = new Editor(copies[name]);
    const value = editor.json("config.json")[key];
    // one unit in the last place of a double: a multiplier is compared as it is written
    const next = (number: number) => number * (1 + Number.EPSILON);
    editor.config({
      [key]: Array.isArray(value) ? [...value.slice(0, -1), next(value.at(-1))] : next(Number(value)),
    });
    score.planted++;
    const report = await verifyCheckpoints(await opened(copies[name]), await opened(editor.copy), QUICK);
    expect(report.verdict).toBe("different");
    expect(JSON.stringify(report.findings)).toContain(key);
    score.caught++;
  });
});

/** The distance of the logits of 17 tokens from those that Transformers recorded, with some dims changed. */
async function distance(
  name: Name,
  change: (d: Record<string, unknown>) => Readonly<Record<string, unknown>>,
) {
  const model = await loadModelWithScales(await opened(copies[name]), {});
  const { ids, after } = await recorded(name, "len17");
  const dims = { ...model.dims, ...change({ ...model.dims }) } as unknown as Dims;
  const sum = new Distance(ids.length);
  let relL2 = Number.NaN;
  await runForwardPass({ ...model, dims }, ids, backend, QUICK, {
    logits({ values }) {
      const expected = Float32Array.from(ids.flatMap((_, t) => [...after(t + 1)]));
      relL2 = sum.add(expected, values).relL2;
    },
  });
  return relL2;
}

describe("each piece of the mathematics moves the logits", () => {
  it.each(NAMES)("%s as it is", async (name) => expect(await distance(name, () => ({}))).toBeLessThan(2e-5));

  it.each<[name: Name, what: string, change: Parameters<typeof distance>[1]]>([
    ["bamba", "norm per group", (d) => ({ normGroups: d.groups })],
    ["bamba", "norm before the gate", () => ({ normFirst: 1 })],
    ["bamba", "whole heads turned", (d) => ({ rotary: { ...(d.rotary as object), rotary: d.headDim } })],
    ["granitemoehybrid", "norm per group", (d) => ({ normGroups: d.groups })],
    [
      "granitemoehybrid",
      "scores times 1 / √head_dim",
      (d) => ({ scoreScale: 1 / Math.sqrt(Number(d.headDim)) }),
    ],
    ["granitemoehybrid", "no residual multiplier", () => ({ residualMultiplier: 1 })],
    ["granitemoehybrid", "no embedding multiplier", () => ({ embeddingMultiplier: 1 })],
    ["granitemoehybrid", "no scaling of logits", () => ({ logitsScaling: 1 })],
    ["granitemoehybrid", "softmax over all experts", () => ({ routeNormalise: 0 })],
    ["falcon_h1", "no key multiplier", () => ({ keyMultiplier: 1 })],
    ["falcon_h1", "no multiplier before attention", () => ({ attentionInMultiplier: 1 })],
    ["falcon_h1", "no multiplier after attention", () => ({ attentionOutMultiplier: 1 })],
    ["falcon_h1", "no multiplier before Mamba", () => ({ ssmInMultiplier: 1 })],
    ["falcon_h1", "no multiplier after Mamba", () => ({ ssmOutMultiplier: 1 })],
    ["falcon_h1", "no multipliers in Mamba", () => ({ ssmMultipliers: [1, 1, 1, 1, 1] })],
    [
      "falcon_h1",
      "multipliers in Mamba in another order",
      () => ({ ssmMultipliers: [0.7, 1.2, 1.4, 0.8, 1.1] }),
    ],
    ["falcon_h1", "gate's multiplier after the activation", () => ({ mlpMultipliers: [1, 0.54] })],
    ["falcon_h1", "no multiplier of the embedding", () => ({ embeddingMultiplier: 1 })],
    ["falcon_h1", "no multiplier of the logits", () => ({ lmHeadMultiplier: 1 })],
  ])("%s: %s", async (name, _, change) => expect(await distance(name, change)).toBeGreaterThan(2e-3));
});
