/** Kernels decode quantised blocks to the bits of the definition, in WebAssembly and in WGSL. */
import { afterAll, describe, expect, it } from "vitest";
import { createWasmBackend } from "../../kernels/backend/wasm.ts";
import { linear, widen } from "../../kernels/index.ts";
import { halvesOf } from "../../src/core/blocks/values.ts";
import { blockElements, DECODED_BLOCKS, type DecodedBlock, widthOf } from "../../src/core/dtype.ts";
import { encode, widen as valuesOf } from "../../src/core/float.ts";
import { arraysOf, ggufGolden } from "../support/goldens.ts";
import { runOn } from "../support/kernels/run.ts";
import { gpuBackend } from "../support/kernels/software-gpu.ts";
import { randomFrom } from "../support/random.ts";

const one = await createWasmBackend({ threads: 1, memoryBytes: 64 << 20 });
const three = await createWasmBackend({ threads: 3, memoryBytes: 64 << 20 });
const gpu = await gpuBackend();
const backends = [one, three, gpu];
afterAll(() => Promise.all(backends.map((backend) => backend[Symbol.asyncDispose]())));

const rows = await arraysOf(ggufGolden("blocks.safetensors"));
const sizeOf = (dtype: DecodedBlock) => blockElements(dtype) * widthOf(dtype);

/** A block with finite F16 numbers, then copies of it with one bit changed each; the F16 numbers stay finite. */
function everyBit(dtype: DecodedBlock, first: Uint8Array): Uint8Array {
  const size = sizeOf(dtype);
  const highest = halvesOf(dtype).map((at) => 8 * at + 14); // the bit of the exponent that makes infinities
  const bits = Array.from({ length: 8 * size }, (_, bit) => bit).filter((bit) => !highest.includes(bit));
  const blocks = new Uint8Array(size * (bits.length + 1));
  blocks.set(first);
  for (const [i, bit] of bits.entries()) {
    blocks.set(first, (i + 1) * size);
    blocks[(i + 1) * size + (bit >> 3)]! ^= 1 << (bit & 7);
  }
  return blocks;
}

function randomBlocks(dtype: DecodedBlock, count: number, seed: number): Uint8Array {
  const random = randomFrom(seed);
  const bytes = Uint8Array.from({ length: count * sizeOf(dtype) }, () => random(256));
  for (let i = 0; i < count; i++) {
    for (const at of halvesOf(dtype)) {
      const code = encode("F16", (random(2) - 0.5) * (1 + random(1024) / 1024));
      bytes.set([code & 0xff, code >> 8], i * sizeOf(dtype) + at);
    }
  }
  return bytes;
}

/** Index of the first value with other bits, or -1. */
const firstUnequal = (a: Float32Array, b: Float32Array) =>
  a.findIndex((value, i) => !Object.is(value, b[i]) || a.length !== b.length);

describe.each(DECODED_BLOCKS)("%s", (dtype) => {
  it("widens hard rows to the bits of the definition", async () => {
    const { bytes } = rows.get(dtype)!;
    const wanted = valuesOf(dtype, bytes);
    for (const backend of backends) {
      const got = await runOn(backend, widen, { count: wanted.length, dtype, scale: 1 }, [bytes]);
      expect(firstUnequal(got, wanted), backend.device).toBe(-1);
    }
  });

  it("uses each bit of a block as the definition does", async () => {
    const bytes = everyBit(dtype, randomBlocks(dtype, 1, 7));
    const wanted = valuesOf(dtype, bytes);
    for (const backend of backends) {
      const got = await runOn(backend, widen, { count: wanted.length, dtype, scale: 1 }, [bytes]);
      expect(firstUnequal(got, wanted), backend.device).toBe(-1);
    }
  });

  it("has the same bits as its values as F32, in any band and with any threads", async () => {
    const [tokens, cols, count] = [3, 1280, 13];
    const stored = randomBlocks(dtype, (count * cols) / blockElements(dtype), 11);
    const x = Float32Array.from({ length: tokens * cols }, (_, i) => Math.sin(1.3 * i));
    const p = { tokens, cols, scale: 1, firstRow: 0, inWidth: cols, inFrom: 0, outFrom: 0 };
    for (const backend of backends) {
      const all = { ...p, rows: count, outWidth: count };
      const wanted = await runOn(backend, linear, { ...all, dtype: "F32" }, [valuesOf(dtype, stored), x]);
      const whole = await runOn(backend, linear, { ...all, dtype }, [stored, x]);
      expect(firstUnequal(whole, wanted), backend.device).toBe(-1);
      const band = await runOn(backend, linear, { ...p, dtype, firstRow: 3, rows: 7, outWidth: 7 }, [
        stored,
        x,
      ]);
      for (let t = 0; t < tokens; t++) {
        const expected = whole.slice(t * count + 3, t * count + 10);
        expect(firstUnequal(band.slice(7 * t, 7 * t + 7), expected), backend.device).toBe(-1);
      }
    }
  });
});
