/** What each quantization dialect says about FP8 weights, beside what the real writers say, and the check of its list. */
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  QUANT_DIALECTS,
  type QuantizedModel,
  WEIGHT_SCALES,
} from "../../src/plugins/quantization-dialect.ts";
import { quantizationDialects } from "../../src/quantization/dialects.ts";
import { refuseWrongHits } from "../../src/quantization/list-check.ts";
import { QUANTIZED } from "../support/quantized.ts";

const GENUINE = new URL("../../fixtures/fp8-dialects/", import.meta.url);
const jsonOf = (path: string) => JSON.parse(readFileSync(new URL(path, GENUINE), "utf8"));

const model: QuantizedModel = {
  ...QUANTIZED,
  cast: ["backbone.layers.0.mixer.in_proj.weight"],
  kept: ["lm_head.weight", "backbone.layers.3.mixer.q_proj.weight"],
  others: ["backbone.embeddings.weight", "backbone.layers.0.mixer.conv1d.weight"],
};
const list = ["lm_head", "backbone.layers.3.mixer.q_proj"];

/** Every field of `said` has this value in what the real writer wrote; lists of modules and names of writers are apart. */
function expectAgreement(said: unknown, genuine: unknown, path = ""): void {
  if (/ignore|exclude_modules|modules_to_not_convert|ignored_layers|version/.test(path)) return;
  if (said === null || typeof said !== "object" || Array.isArray(said)) {
    expect(said, path).toEqual(genuine ?? null);
    return;
  }
  for (const [key, value] of Object.entries(said)) {
    expectAgreement(value, (genuine as Record<string, unknown> | null)?.[key], `${path}.${key}`);
  }
}

describe("a description agrees with the real writer's", () => {
  it.each([
    ["ct-tensor-static", "compressed-tensors", { activations: "static" }],
    ["ct-tensor-dynamic", "compressed-tensors", {}],
    ["ct-channel-dynamic", "compressed-tensors", { scales: "row" }],
    ["ct-block-128", "compressed-tensors", { scales: "block" }],
    ["ct-mxfp8", "compressed-tensors", { scales: "mxfp8" }],
    ["modelopt-fp8", "modelopt", { activations: "static", cache: true }],
    ["modelopt-pcpt", "modelopt", { scales: "row", cache: true }],
    ["modelopt-pbwo", "modelopt", { scales: "block", cache: true }],
    ["modelopt-mxfp8", "modelopt", { scales: "mxfp8", cache: true }],
    ["fp8-tensor-static", "fp8", { activations: "static" }],
    ["fp8-tensor-hf", "fp8", {}],
    ["fp8-block-128", "fp8", { scales: "block" }],
  ] as const)("%s", (folder, dialect, changed) => {
    const { config, files } = quantizationDialects[dialect].describe({ ...model, ...changed });
    expectAgreement(config, jsonOf(`${folder}/config.json`).quantization_config);
    expect(files.map(({ path }) => path)).toEqual(
      ["hf_quant_config.json"].filter((path) => existsSync(new URL(`${folder}/${path}`, GENUINE))),
    );
    for (const { path, value } of files) expectAgreement(value, jsonOf(`${folder}/${path}`));
  });
});

describe("a description", () => {
  it("lists what is kept, each name once, in the key that engines read", () => {
    const kept = [...model.kept, ...model.kept];
    const said = (dialect: (typeof QUANT_DIALECTS)[number], changed: Partial<QuantizedModel> = {}) =>
      quantizationDialects[dialect].describe({ ...model, kept, ...changed });
    expect(said("compressed-tensors").config).toMatchObject({ ignore: list });
    expect(said("fp8").config).toMatchObject({ ignored_layers: list, weight_block_size: null });
    expect(said("fp8", { scales: "block" }).config).toMatchObject({ modules_to_not_convert: list });
    const { config, files } = said("modelopt", { activations: "static" });
    const all = [...list, "backbone.embeddings", "backbone.layers.0.mixer.conv1d"];
    expect(config.ignore).toEqual(all);
    expect(files[0]?.value).toMatchObject({ quantization: { exclude_modules: all } });
  });

  it.each([
    ["modelopt", {}, "static activations"],
    ["modelopt", { dtype: "F8_E5M2" }, "F8_E5M2"],
    ["fp8", { dtype: "F8_E5M2" }, "F8_E5M2"],
    ["fp8", { heads: ["lm_head.weight"] }, "lm_head"],
  ] as const)("of %s is refused for %j", (dialect, changed, reason) => {
    expect(() => quantizationDialects[dialect].describe({ ...model, ...changed })).toThrow(
      expect.objectContaining({ code: "PLAN_IMPOSSIBLE", message: expect.stringContaining(reason) }),
    );
  });

  it("names an FP8 head as a target, and says which engines read it", () => {
    const heads = ["lm_head.weight"];
    const { config, warnings } = quantizationDialects["compressed-tensors"].describe({ ...model, heads });
    expect(config).toMatchObject({ config_groups: { group_0: { targets: ["Linear", "lm_head"] } } });
    expect(warnings).toEqual([expect.stringMatching(/lm_head.*SGLang.*vLLM/)]);
    const modelopt = quantizationDialects.modelopt.describe({ ...model, heads, activations: "static" });
    expect(modelopt.warnings).toContainEqual(expect.stringMatching(/lm_head.*vLLM/));
  });

  it("says who reads one scale a tensor under the method fp8", () => {
    expect(quantizationDialects.fp8.describe(model).warnings).toEqual([
      expect.stringMatching(/vLLM and SGLang read.*Transformers/),
    ]);
  });
});

describe("scale tensors", () => {
  const shape = [300, 256];
  it.each([
    ["compressed-tensors", [[1], [300, 1], [3, 2], [300, 8]]],
    ["modelopt", [[], [300], [3, 1, 2, 1], [300, 8]]],
  ] as const)("of %s have the shapes of the real writer", (dialect, shapes) => {
    const tensors = WEIGHT_SCALES.map((scales) =>
      quantizationDialects[dialect].scaleTensor("a.weight", shape, scales),
    );
    expect(tensors.map((tensor) => tensor.shape)).toEqual(shapes);
    expect(tensors.map(({ dtype }) => dtype)).toEqual(["F32", "F32", "F32", "U8"]);
    expect(new Set(tensors.map(({ name }) => name))).toEqual(new Set(["a.weight_scale"]));
  });

  it("of ModelOpt have no dimensions where one block covers the weight", () => {
    expect(quantizationDialects.modelopt.scaleTensor("a.weight", [128, 64], "block").shape).toEqual([]);
  });

  it("of the method fp8 have two names, and no name for rows", () => {
    const { scaleTensor } = quantizationDialects.fp8;
    expect(scaleTensor("a.weight", shape, "tensor")).toEqual({
      name: "a.weight_scale",
      dtype: "F32",
      shape: [],
    });
    expect(scaleTensor("a.weight", shape, "block")).toMatchObject({
      name: "a.weight_scale_inv",
      shape: [3, 2],
    });
    expect(() => scaleTensor("a.weight", shape, "row")).toThrow("one scale a row");
    expect(() => scaleTensor("a.weight", shape, "mxfp8")).toThrow("MXFP8");
  });
});

it("an entry that also hits an FP8 module is refused, a whole name is not", () => {
  const layers = ["1", "10"].map((layer) => `backbone.layers.${layer}.mixer.up_proj`);
  for (const method of QUANT_DIALECTS)
    expect(() => refuseWrongHits(method, [layers[0]!], [layers[1]!])).not.toThrow();
  expect(() => refuseWrongHits("modelopt", ["backbone.layers.1"], layers)).toThrow(/vLLM would take/);
  expect(() => refuseWrongHits("fp8", ["a.gate"], ["a.gate_proj"])).toThrow(
    /Transformers would take a.gate_proj/,
  );
  expect(() => refuseWrongHits("compressed-tensors", ["a.gate"], ["a.gate_proj"])).not.toThrow();
});
