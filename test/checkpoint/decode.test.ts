import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { decodeWeights, encodedWeights, loadModel } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { countOf } from "../../src/core/dtype.ts";
import { bitsOfF32, encodeBits, tableOf, widen } from "../../src/core/float.ts";
import { extentsOf, Sources } from "../../src/core/read.ts";
import { fp8Dialects } from "../support/goldens.ts";

type Expected = Record<string, Record<string, { shape: number[]; f32: string; bf16: string }>>;
const expected: Expected = JSON.parse(readFileSync(fp8Dialects("expected.json"), "utf8"));
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** The values of every quantised weight: decoded by the store, or code * scale where a tensor has one scale. */
async function valuesIn(folder: string): Promise<Map<string, Float32Array>> {
  const model = await loadModel(await openCheckpoint(fp8Dialects(folder)));
  const decoded = decodeWeights(model);
  await using sources = new Sources(decoded.checkpoint.store);
  const values = new Map<string, Float32Array>();
  for (const [name, scale] of model.scales.scaleOf) {
    const tensor = decoded.tensors.get(name)!;
    const count = countOf(tensor.shape);
    const isDecoded = encodedWeights(model).has(name);
    const bytes = new Uint8Array(count * (isDecoded ? 4 : 1));
    await sources.read(extentsOf(tensor, 0, count), bytes);
    if (isDecoded) values.set(name, widen("F32", bytes));
    else {
      const { file, offset } = decoded.tensors.get(scale.tensor)!.pieces[0]!;
      const factor = widen("F32", await sources.bytes(file, offset, 4))[0]!;
      values.set(
        name,
        Float32Array.from(bytes, (code) => tableOf("F8_E4M3")[code]! * factor),
      );
    }
  }
  return values;
}

describe("every weight is decoded as the library that wrote it decodes it", () => {
  it.each(Object.keys(expected))("%s", async (folder) => {
    const values = await valuesIn(folder);
    expect([...values.keys()].sort()).toEqual(
      Object.keys(expected[folder]!)
        .map((module) => `${module}.weight`)
        .sort(),
    );
    for (const [module, { shape, f32, bf16 }] of Object.entries(expected[folder]!)) {
      const found = values.get(`${module}.weight`)!;
      expect(found.length).toBe(countOf(shape));
      expect(sha256(new Uint8Array(found.buffer)), module).toBe(f32);
      const halves = Uint16Array.from(found, (value) => encodeBits("BF16", bitsOfF32(value)));
      expect(sha256(new Uint8Array(halves.buffer)), module).toBe(bf16);
    }
  });

  it("in any ranges", async () => {
    const model = await loadModel(await openCheckpoint(fp8Dialects("modelopt-nvfp4")));
    const decoded = decodeWeights(model);
    await using sources = new Sources(decoded.checkpoint.store);
    const tensor = decoded.tensors.get("backbone.layers.0.mixer.in_proj.weight")!;
    const whole = new Uint8Array(4 * countOf(tensor.shape));
    await sources.read(extentsOf(tensor, 0, whole.length / 4), whole);
    for (const [lo, hi] of [
      [0, 1],
      [1, 2],
      [15, 17],
      [63, 65],
      [127, 1001],
      [20991, 20992],
    ] as const) {
      const part = new Uint8Array(4 * (hi - lo));
      await sources.read(extentsOf(tensor, lo, hi), part);
      expect(part).toEqual(whole.subarray(4 * lo, 4 * hi));
    }
  });
});
