/** Casts to ggml's blocks: the bytes of ggml and of llama-quantize, a definition in plain JavaScript, and parts of any size. */
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { gguf } from "../../formats/gguf/format.ts";
import { createSharedMemory, FIRST_ADDRESS } from "../../kernels/module.ts";
import { type Caster, createCaster, SCRATCH_BYTES } from "../../src/cast/cast.ts";
import { type BlockEncoder, createBlockEncoder } from "../../src/cast/encode-blocks.ts";
import { BLOCK_TARGETS, type BlockTarget, bitsOf, type FloatDType, widthOf } from "../../src/core/dtype.ts";
import { encodeBits, widen } from "../../src/core/float.ts";
import { sha256 } from "../../src/core/hash.ts";
import { fileStore } from "../../src/io/file.ts";
import { seeded } from "../support/cast/arena.ts";
import { encodeBlocksPlainly } from "../support/cast/block-oracle.ts";
import { bytesIn } from "../support/content.ts";
import { errorOf } from "../support/errors.ts";
import { arraysOf, floatsOf, ggufGolden } from "../support/goldens.ts";

const memory = createSharedMemory(SCRATCH_BYTES + 16 * 1024 * 1024);
const first = FIRST_ADDRESS + SCRATCH_BYTES + 1; // an odd address on purpose
let caster: Caster;
let encoder: BlockEncoder;
beforeAll(async () => {
  caster = await createCaster(memory, FIRST_ADDRESS);
  encoder = await createBlockEncoder(memory, FIRST_ADDRESS, caster);
});

interface Elements {
  readonly from: FloatDType;
  readonly bytes: Uint8Array;
  readonly sourceScale?: number;
}

/** Encodes elements as they lie; `step` elements at a time. */
function encode({ from, bytes, sourceScale }: Elements, to: BlockTarget, step = Infinity): Uint8Array {
  const count = bytes.byteLength / widthOf(from);
  const toAt = first + bytes.byteLength + 2;
  new Uint8Array(memory.buffer).set(bytes, first);
  for (let lo = 0; lo < count; lo += step) {
    const size = Math.min(step, count - lo);
    const at = first + lo * widthOf(from);
    encoder.encode(from, to, sourceScale ?? null, at, toAt + (lo * bitsOf(to)) / 8, size);
  }
  return new Uint8Array(memory.buffer, toAt, (count * bitsOf(to)) / 8).slice();
}

const f32 = (numbers: Float32Array): Elements => ({
  from: "F32",
  bytes: new Uint8Array(numbers.slice().buffer),
});

/** The number of each block in which two results differ. */
function differingBlocks(a: Uint8Array, b: Uint8Array, dtype: BlockTarget): readonly number[] {
  const size = (bitsOf(dtype) * (dtype.endsWith("K") ? 256 : 32)) / 8;
  expect(a.byteLength).toBe(b.byteLength);
  return [...new Set([...a].flatMap((byte, i) => (byte === b[i] ? [] : [Math.floor(i / size)])))];
}

describe("the bytes of ggml on hard rows", async () => {
  const rows = await arraysOf(ggufGolden("blocks.safetensors"));
  const input = floatsOf(rows.get("input")!);
  it.each(BLOCK_TARGETS)("%s", (dtype) => {
    const { bytes } = rows.get(dtype)!;
    expect(differingBlocks(encode(f32(input), dtype), bytes, dtype)).toEqual([]);
    expect(differingBlocks(encodeBlocksPlainly(dtype, input), bytes, dtype)).toEqual([]);
  });
});

const quantized: Record<string, Record<string, { type: string; sha256: string }>> = JSON.parse(
  readFileSync(ggufGolden("quantized.json"), "utf8"),
);

describe("the bytes of llama-quantize from the same BF16 file", () => {
  it.each(Object.entries(quantized))("%s", async (name, tensors) => {
    const source = name.startsWith("k-") ? "k-bf16.gguf" : "tiny-split";
    const checkpoint = await gguf.read(await fileStore(ggufGolden(source)));
    const stored = new Map(checkpoint.tensors.map((tensor) => [tensor.name, tensor]));
    const blocks = Object.entries(tensors).filter(([, { type }]) => type !== "F32");
    expect(blocks.length).toBeGreaterThan(10);
    for (const [tensor, { type, sha256: digest }] of blocks) {
      const bytes = await bytesIn(checkpoint.store, stored.get(tensor)!);
      expect(sha256(encode({ from: "BF16", bytes }, type as BlockTarget)), tensor).toBe(digest);
    }
  });
});

/** Rows of 256 of very different kinds: magnitudes from subnormal to huge, offsets, few levels, runs of zeros of both signs. */
function randomRows(seed: number, rows: number): Float32Array {
  const random = seeded(seed);
  const numbers = new Float32Array(256 * rows);
  for (let row = 0; row < rows; row++) {
    const size = 10 ** (random() < 0.7 ? -3 + 4 * random() : -44 + 48 * random());
    const offset = random() < 0.3 ? size * (4 * random() - 2) : 0;
    const levels = random() < 0.3 ? 1 + Math.floor(random() * 12) : 0;
    const zeros = random() < 0.3 ? random() : 0;
    // so little spread that the integers of ggml wrap round
    const spread = offset !== 0 && random() < 0.4 ? 1e-6 : 1;
    for (let i = 256 * row; i < 256 * row + 256; i++) {
      const unit = random() + random() + random() - 1.5;
      const value = levels > 0 ? Math.round(unit * levels) / levels : unit;
      numbers[i] = random() < zeros ? (random() < 0.5 ? 0 : -0) : offset + size * spread * value;
    }
  }
  return numbers;
}

describe("a definition in plain JavaScript", () => {
  it.each(BLOCK_TARGETS)("%s of random rows", (dtype) => {
    const numbers = randomRows(7, 600);
    expect(differingBlocks(encode(f32(numbers), dtype), encodeBlocksPlainly(dtype, numbers), dtype)).toEqual(
      [],
    );
  });

  it.each(BLOCK_TARGETS)("%s of other types, with a scale", (dtype) => {
    const random = seeded(3);
    for (const from of ["BF16", "F16", "F8_E4M3", "F8_E5M2"] as const) {
      const width = widthOf(from);
      const bytes = new Uint8Array(256 * 20 * width);
      const view = new DataView(bytes.buffer);
      for (let i = 0; i < 256 * 20; i++) {
        const value = random() + random() - 1;
        if (from === "F8_E4M3" || from === "F8_E5M2")
          view.setUint8(i, encodeBits(from, new Uint32Array(Float32Array.of(300 * value).buffer)[0]!));
        else
          view.setUint16(2 * i, encodeBits(from, new Uint32Array(Float32Array.of(value).buffer)[0]!), true);
      }
      const sourceScale = width === 1 ? Math.fround(0.00123) : undefined;
      const numbers = widen(from, bytes).map((value) => value * (sourceScale ?? 1));
      const found = encode({ from, bytes, ...(sourceScale !== undefined && { sourceScale }) }, dtype);
      expect(differingBlocks(found, encodeBlocksPlainly(dtype, numbers), dtype), from).toEqual([]);
    }
  });
});

describe("the size of the parts changes no byte", () => {
  it.each(BLOCK_TARGETS)("%s", (dtype) => {
    const elements = f32(randomRows(11, 64));
    const whole = encode(elements, dtype);
    for (const step of [256, 768, 4096, 4352])
      expect(differingBlocks(encode(elements, dtype, step), whole, dtype)).toEqual([]);
  });
});

describe("what has no block", () => {
  it.each(BLOCK_TARGETS)("%s names the first element that is no number", async (dtype) => {
    const numbers = randomRows(5, 40);
    for (const [index, value] of [
      [9000, Infinity],
      [5001, NaN],
      [5000, -Infinity],
    ] as const) {
      numbers[index] = value;
      const error = await errorOf(async () => encode(f32(numbers), dtype));
      expect(error).toMatchObject({ code: "NON_FINITE", at: { index } });
    }
  });

  it.each(BLOCK_TARGETS)("%s names the first of the blocks with a scale that is no F16", async (dtype) => {
    const numbers = new Float32Array(256 * 20).fill(1);
    const block = dtype.endsWith("K") ? 256 : 32;
    for (const value of [3e38, 1e10]) {
      for (const index of [4500, 4800, 5100]) numbers[index] = value; // in one part
      const error = await errorOf(async () => encode(f32(numbers), dtype));
      expect(error).toMatchObject({ code: "OVERFLOW", at: { index: 4500 - (4500 % block) } });
    }
  });

  it.each(["Q4_1", "Q5_1", "Q4_K", "Q5_K"] as const)("%s: or with such a minimum", async (dtype) => {
    const numbers = new Float32Array(256).fill(-1e9);
    expect(await errorOf(async () => encode(f32(numbers), dtype))).toMatchObject({ code: "OVERFLOW" });
  });

  it("a product with the scale of an FP8 source that is infinite", async () => {
    const bytes = new Uint8Array(256).fill(0x38);
    bytes[77] = 0x7e; // 448
    const error = await errorOf(async () =>
      encode({ from: "F8_E4M3", bytes, sourceScale: Math.fround(1e37) }, "Q8_0"),
    );
    expect(error).toMatchObject({ code: "NON_FINITE", at: { index: 77 } });
  });
});

it("a caster whose tables were overwritten casts as before", async () => {
  const bytes = new Uint8Array(Uint16Array.from({ length: 4096 }, (_, i) => 0x3000 + i).buffer);
  const cast = () => {
    new Uint8Array(memory.buffer).set(bytes, first);
    caster.cast("BF16", "F8_E4M3", 0.5, null, first, first + 8192, 4096);
    return new Uint8Array(memory.buffer, first + 8192, 4096).slice();
  };
  const before = cast();
  encode({ from: "F8_E4M3", bytes: new Uint8Array(8192).fill(0x30), sourceScale: 2 }, "Q4_K");
  expect(cast()).toEqual(before);
});
