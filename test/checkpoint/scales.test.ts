import { describe, expect, it } from "vitest";
import { pairScales } from "../../src/checkpoint/scales/pair.ts";
import { readScale, readScales, scalesOf } from "../../src/checkpoint/scales/values.ts";
import type { Tensor } from "../../src/core/checkpoint.ts";
import type { DType, Shape } from "../../src/core/dtype.ts";
import { encode } from "../../src/core/float.ts";
import { type ByteSource, readRange } from "../../src/core/io.ts";
import { quantizationDialects } from "../../src/quantization/dialects.ts";

const tensor = (name: string, dtype: DType, shape: Shape): Tensor => ({
  name,
  dtype,
  shape,
  pieces: [{ file: "model.safetensors", offset: 4, start: shape.map(() => 0), shape }],
});
const UP = "backbone.layers.1.mixer.up_proj.weight";
const up = tensor(UP, "F8_E4M3", [256, 128]);

describe("a scale is found by its name and shape", () => {
  it.each([
    ["_scale", "F32", [], "tensor", [256, 128]],
    ["_scale", "F32", [1], "tensor", [256, 128]],
    ["_scale", "BF16", [1, 1], "tensor", [256, 128]],
    ["_scale_inv", "F32", [], "tensor", [256, 128]],
    ["_scale", "F32", [256], "row", [1, 128]],
    ["_scale", "F16", [256, 1], "row", [1, 128]],
    ["_scale_inv", "F32", [2, 1], "block", [128, 128]],
    ["_scale", "F32", [2, 1, 1, 1], "block", [128, 128]],
    ["_scale_inv", "BF16", [4, 2], "block", [64, 64]],
    ["_scale", "U8", [256, 4], "block", [1, 32]],
    ["_scale", "F8_E8M0", [256, 4], "block", [1, 32]],
  ] as const)("%s %s %j", (ending, dtype, shape, extent, block) => {
    const name = UP + ending;
    const scales = pairScales([up, tensor(name, dtype, shape), tensor("lm_head.weight", "BF16", [8, 128])]);
    expect([...scales.scaleOf]).toMatchObject([[UP, { tensor: name, extent, block }]]);
    expect([...scales.scaleTensors]).toEqual([name]);
    expect([...scales.ownerOf]).toEqual([[name, UP]]);
    expect(scales.unusedScales).toEqual([]);
  });

  it("of activations and caches travels unread, with its weight where there is one", () => {
    const names = ["k_proj.k_scale", "k_proj.input_scale", "v_proj.activation_scale", "attn.v_scale"];
    const weights = ["k_proj", "v_proj"].map((name) => tensor(`${name}.weight`, "BF16", [4, 4]));
    const scales = pairScales([...weights, ...names.map((name) => tensor(name, "F32", []))]);
    expect(scales.unusedScales).toEqual(names);
    expect([...scales.scaleTensors]).toEqual(names);
    expect([...scales.ownerOf]).toEqual([
      ["k_proj.k_scale", "k_proj.weight"],
      ["k_proj.input_scale", "k_proj.weight"],
      ["v_proj.activation_scale", "v_proj.weight"],
    ]);
  });

  it.each(Object.values(quantizationDialects))("is what $id writes for a weight", ({ scaleTensor }) => {
    const { name, shape } = scaleTensor(UP, [4, 4], "tensor");
    expect(pairScales([up, tensor(name, "F32", shape)]).scaleOf.get(UP)?.tensor).toBe(name);
  });

  it.each([
    ["no scale", [up], "SCALE_INVALID", UP],
    [
      "two scales",
      [up, tensor(`${UP}_scale`, "F32", []), tensor(`${UP}_scale_inv`, "F32", [])],
      "SCALE_INVALID",
      `${UP}_scale_inv`,
    ],
    ["no weight", [tensor(`${UP}_scale`, "F32", [])], "SCALE_INVALID", `${UP}_scale`],
    [
      "a BF16 weight",
      [tensor(UP, "BF16", [2, 2]), tensor(`${UP}_scale`, "F32", [])],
      "SCALE_INVALID",
      `${UP}_scale`,
    ],
    [
      "an INT8 weight",
      [tensor(UP, "I8", [2, 2]), tensor(`${UP}_scale`, "F32", [])],
      "UNSUPPORTED",
      `${UP}_scale`,
    ],
    ["scales of no blocks", [up, tensor(`${UP}_scale_inv`, "F32", [3, 1])], "UNSUPPORTED", `${UP}_scale_inv`],
    ["scales of five parts", [up, tensor(`${UP}_scale`, "F32", [5])], "UNSUPPORTED", `${UP}_scale`],
    ["FP8 scales", [up, tensor(`${UP}_scale`, "F8_E4M3", [256, 4])], "UNSUPPORTED", `${UP}_scale`],
    ["a lone second scale", [tensor("a.weight_scale_2", "F32", [])], "SCALE_INVALID", "a.weight_scale_2"],
    ["AMD's E4M3 and no scale", [tensor(UP, "F8_E4M3FNUZ", [2, 2])], "SCALE_INVALID", UP],
  ] as const)("with %s the checkpoint is refused by name", (_, tensors, code, name) => {
    expect(() => pairScales(tensors)).toThrow(
      expect.objectContaining({ code, exit: 3, at: { tensor: name } }),
    );
  });
});

describe("a scale's value", () => {
  const f32 = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
  const half = (dtype: "BF16" | "F16", ...values: number[]) =>
    new Uint8Array(Uint16Array.from(values, (value) => encode(dtype, value)).buffer);

  it("is widened exactly, subnormal F32 included", () => {
    expect([...scalesOf({ name: "s", dtype: "F32" }, f32(6.151700258385947e-43, 2))]).toEqual([
      6.151700258385947e-43, 2,
    ]);
    expect([...scalesOf({ name: "s", dtype: "BF16" }, half("BF16", 0.0078125))]).toEqual([0.0078125]);
    expect([...scalesOf({ name: "s", dtype: "F16" }, half("F16", 0.25))]).toEqual([0.25]);
  });

  it.each([
    ["F32", f32(1, 0)],
    ["F32", f32(1, -1)],
    ["F32", f32(1, NaN)],
    ["F32", f32(1, Infinity)],
    ["F32", f32(1, -3.4028234663852886e38)],
    ["BF16", half("BF16", 1, 2 ** -130)],
    ["F16", half("F16", 1, 2 ** -20)],
  ] as const)("of %s is refused when no engine could use it: %j", (dtype, bytes) => {
    expect(() => scalesOf({ name: "s", dtype }, bytes)).toThrow(
      expect.objectContaining({ code: "SCALE_INVALID", at: { tensor: "s", index: 1 } }),
    );
  });

  it("is read from where the tensor lies", async () => {
    const file = Uint8Array.of(9, 9, 9, 9, ...f32(0.5, 0.25));
    const source: ByteSource = {
      url: "memory",
      size: file.byteLength,
      readInto: async (target, offset) => target.set(file.subarray(offset, offset + target.byteLength)),
      [Symbol.asyncDispose]: async () => {},
    };
    const files = { bytes: (_: string, offset: number, size: number) => readRange(source, offset, size) };
    expect(await readScale(tensor("s", "F32", []), files)).toBe(0.5);
    expect([...(await readScales(tensor("s", "F32", [2]), files))]).toEqual([0.5, 0.25]);
    await expect(readScale(tensor("s", "F32", [2]), files)).rejects.toMatchObject({ code: "UNSUPPORTED" });
  });
});
