/** What each tool declares, in one form. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeScheme, schemeOf } from "../../src/quantization/scheme.ts";

const FIXTURES = new URL("../../fixtures/fp8-dialects/", import.meta.url).pathname;
const json = (path: string) => JSON.parse(readFileSync(FIXTURES + path, "utf8"));
const kindsOf = (record: Record<string, unknown>) => describeScheme(schemeOf(record)!);

const KINDS: readonly [folder: string, kinds: readonly string[]][] = [
  ["ct-tensor-static", ["FP8, one scale per tensor, static activations"]],
  ["ct-tensor-dynamic", ["FP8, one scale per tensor, dynamic activations"]],
  ["ct-channel-dynamic", ["FP8, one scale per channel, dynamic activations"]],
  ["ct-block-128", ["FP8, one scale per block of 128 x 128, dynamic activations"]],
  ["ct-mxfp8", ["MXFP8, dynamic activations"]],
  ["ct-nvfp4", ["NVFP4, static activations"]],
  ["fp8-tensor-hf", ["FP8, one scale per tensor, dynamic activations"]],
  ["fp8-tensor-static", ["FP8, one scale per tensor, static activations"]],
  ["fp8-block-8x32", ["FP8, one scale per block of 8 x 32, dynamic activations"]],
  ["fp8-block-128", ["FP8, one scale per block of 128 x 128, dynamic activations"]],
  ["modelopt-fp8", ["FP8, one scale per tensor, static activations", "FP8 KV cache"]],
  ["modelopt-pcpt", ["FP8, one scale per channel, dynamic activations", "FP8 KV cache"]],
  ["modelopt-pbwo", ["FP8, one scale per block of 128 x 128, weights alone", "FP8 KV cache"]],
  ["modelopt-mxfp8", ["MXFP8, dynamic activations", "FP8 KV cache"]],
  ["modelopt-nvfp4", ["NVFP4, static activations", "FP8 KV cache"]],
  [
    "modelopt-mixed",
    ["FP8, one scale per tensor, static activations", "NVFP4, static activations", "FP8 KV cache"],
  ],
];

describe("what config.json and hf_quant_config.json declare", () => {
  it.each(KINDS)("%s", (folder, kinds) => {
    expect(kindsOf(json(`${folder}/config.json`).quantization_config)).toEqual(kinds);
    if (!folder.startsWith("modelopt")) return;
    const { quantization } = json(`${folder}/hf_quant_config.json`);
    expect(kindsOf({ quant_method: "modelopt", ...quantization })).toEqual(kinds);
  });
});

it("weights alone in NVFP4, and the method mxfp8", () => {
  const layers = { lm_head: { quant_algo: "W4A16_NVFP4", group_size: 16 } };
  const mixed = { quant_method: "modelopt", quant_algo: "MIXED_PRECISION", quantized_layers: layers };
  expect(kindsOf(mixed)).toEqual(["NVFP4, weights alone"]);
  expect(kindsOf({ quant_method: "mxfp8" })).toEqual(["MXFP8, dynamic activations"]);
  expect(kindsOf({})).toEqual([]);
});

it("a list that holds no names, and a map that holds no algorithms", () => {
  expect(schemeOf({ quant_method: "fp8", ignored_layers: [1] })).toBeNull();
  expect(schemeOf({ quant_method: "modelopt", quantized_layers: { lm_head: "FP8" } })).toBeNull();
});
