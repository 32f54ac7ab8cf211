/** Values of quantised blocks against those that ggml computes: hard rows, and every tensor of files of llama.cpp. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { bytesOf, DECODED_BLOCKS, type NumericDType } from "../../../src/core/dtype.ts";
import { widen } from "../../../src/core/float.ts";
import { arraysOf, ggufGolden } from "../../support/goldens.ts";

const sha256 = (values: Float32Array) =>
  createHash("sha256").update(new Uint8Array(values.buffer)).digest("hex");

const rows = await arraysOf(ggufGolden("blocks.safetensors"));
const { dequantised_sha256: expected } = JSON.parse(readFileSync(ggufGolden("blocks.json"), "utf8"));

describe("hard rows have the values of ggml, bit for bit", () => {
  it("of every type that is decoded", () => {
    expect([...DECODED_BLOCKS].sort()).toEqual(Object.keys(expected).sort());
  });

  it.each(DECODED_BLOCKS)("%s", (dtype) => {
    expect(sha256(widen(dtype, rows.get(dtype)!.bytes))).toBe(expected[dtype]);
  });
});

interface Described {
  readonly type: NumericDType;
  readonly dims: readonly number[];
  readonly offset: number;
}

describe("quantised tensors of llama.cpp's files have the values of ggml, bit for bit", () => {
  const json = (name: string) => JSON.parse(readFileSync(ggufGolden(name), "utf8"));
  const [files, values] = [json("expected.json"), json("values.json")];
  it.each(["tiny-q8_0.gguf", "tiny-q4_k_m.gguf", "k-q2_k.gguf"])("%s", (name) => {
    const file = Uint8Array.from(readFileSync(ggufGolden(name)));
    const digests = Object.entries<string>(values[name]);
    expect(digests.length).toBeGreaterThan(10);
    for (const [tensor, digest] of digests) {
      const { type, dims, offset } = files[name].tensors[tensor] as Described;
      const at = files[name].data_offset + offset;
      const bytes = file.slice(at, at + bytesOf(type, dims.toReversed()));
      expect(sha256(widen(type, bytes)), tensor).toBe(digest);
    }
  });
});

it("keeps the sign of zero", () => {
  const minusOne = [0x00, 0xbc];
  const zeros = widen("Q4_0", Uint8Array.of(...minusOne, ...Array<number>(16).fill(0x88)));
  expect([...zeros]).toEqual(Array(32).fill(-0));
});

it("refuses bytes that are not whole blocks", () => {
  expect(() => widen("Q4_K", new Uint8Array(143))).toThrow(/143 bytes of Q4_K/);
});
