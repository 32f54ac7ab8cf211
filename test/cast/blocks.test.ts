/** Casts with a scale for each block: the codes of real writers, a definition in plain numbers, and bands of any height. */
import { beforeAll, describe, expect, it } from "vitest";
import { createSharedMemory, FIRST_ADDRESS } from "../../kernels/module.ts";
import { type BlockCaster, type BlockScales, createBlockCaster, exponentOf } from "../../src/cast/blocks.ts";
import { SCRATCH_BYTES, scaleOf } from "../../src/cast/cast.ts";
import { fp8Code } from "../../src/cast/table.ts";
import { widthOf } from "../../src/core/dtype.ts";
import { bitsOfF32, encodeBits, widen } from "../../src/core/float.ts";
import { golden, seeded } from "../support/cast/arena.ts";

const memory = createSharedMemory(SCRATCH_BYTES + 4 * 1024 * 1024);
const first = FIRST_ADDRESS + SCRATCH_BYTES + 1; // an odd address on purpose
let caster: BlockCaster;
beforeAll(async () => {
  caster = await createBlockCaster(memory, FIRST_ADDRESS);
});

/** Casts a matrix row of blocks by row of blocks; `step` rows of it are at hand at a time. */
function castBlocks(scales: BlockScales, bytes: Uint8Array, step = Number.POSITIVE_INFINITY) {
  const rowBytes = scales.columns * widthOf(scales.from);
  const rows = bytes.byteLength / rowBytes;
  const codes: number[] = [];
  const stored: number[] = [];
  const load = (lo: number, hi: number) =>
    new Uint8Array(memory.buffer).set(bytes.subarray(lo * rowBytes, hi * rowBytes), first);
  const to = first + bytes.byteLength;
  for (let top = 0; top < rows; top += scales.block[0]) {
    const bottom = Math.min(rows, top + scales.block[0]);
    const parts: [number, number][] = [];
    for (let lo = top; lo < bottom; lo += Math.min(step, bottom - lo))
      parts.push([lo, Math.min(bottom, lo + step)]);
    caster.begin(scales);
    for (const [lo, hi] of parts) {
      load(lo, hi);
      caster.observe(scales, first, hi - lo);
    }
    const size = caster.writeScales(scales, to);
    stored.push(...new Uint8Array(memory.buffer, to, size));
    for (const [lo, hi] of parts) {
      load(lo, hi);
      caster.writeCodes(scales, first, to, hi - lo);
      codes.push(...new Uint8Array(memory.buffer, to, (hi - lo) * scales.columns));
    }
  }
  return { codes: Uint8Array.from(codes), scales: Uint8Array.from(stored) };
}

const TINY = golden("nemotron-h/tiny/model.safetensors");
const SIDES: Readonly<Record<string, (columns: number) => readonly [number, number]>> = {
  row: (columns) => [1, columns],
  block: () => [128, 128],
  mxfp8: () => [1, 32],
};

describe("the codes and scales of real writers", () => {
  it.each([
    ["ct-channel-dynamic", "row"],
    ["ct-block-128", "block"],
    ["modelopt-mxfp8", "mxfp8"],
  ] as const)("%s", (folder, extent) => {
    const genuine = golden(`fp8-dialects/${folder}/model.safetensors`);
    let compared = 0;
    for (const [name, { dtype, bytes }] of genuine) {
      if (dtype !== "F8_E4M3") continue;
      const weight = TINY.get(name)!;
      const columns = weight.shape[1]!;
      const block = SIDES[extent]!(columns);
      const cast = castBlocks({ from: "BF16", columns, block, isExponent: extent === "mxfp8" }, weight.bytes);
      expect(Buffer.compare(cast.scales, genuine.get(`${name}_scale`)!.bytes), `${name}_scale`).toBe(0);
      expect(Buffer.compare(cast.codes, bytes), name).toBe(0);
      compared++;
    }
    expect(compared).toBeGreaterThan(13);
  });
});

describe("a matrix of any size, type and block", () => {
  const random = seeded(7);
  const normal = () => random() + random() + random() - 1.5;
  it.each([
    ["F32", 5, 70, [1, 70]],
    ["BF16", 133, 130, [128, 128]],
    ["F16", 9, 96, [1, 32]],
    ["BF16", 3, 35, [2, 32]],
    ["F32", 130, 33, [128, 128]],
  ] as const)(
    "%s [%i, %i] in blocks of %j is the definition's, in bands of any height",
    (from, rows, columns, block) => {
      const bits = Array.from({ length: rows * columns }, (_, i) =>
        bitsOfF32(i % columns < 32 && i < columns ? 0 : Math.fround(normal() * 10 ** (-6 * random()))),
      );
      const bytes =
        from === "F32"
          ? new Uint8Array(Uint32Array.from(bits).buffer)
          : new Uint8Array(Uint16Array.from(bits, (b) => encodeBits(from, b)).buffer);
      const values = widen(from, bytes);
      for (const isExponent of [false, true]) {
        const scales = { from, columns, block, isExponent };
        const found = castBlocks(scales, bytes);
        const { codes, stored } = defined(values, rows, scales);
        expect([...found.codes]).toEqual(codes);
        expect([...found.scales]).toEqual(stored);
        for (const step of [1, 3]) expect(castBlocks(scales, bytes, step)).toEqual(found);
      }
    },
  );
});

/** The definition, element by element. */
function defined(values: Float32Array, rows: number, { columns, block, isExponent }: BlockScales) {
  const codes = new Array<number>(values.length);
  const stored: number[] = [];
  for (let top = 0; top < rows; top += block[0]) {
    for (let left = 0; left < columns; left += block[1]) {
      const inside: number[] = [];
      for (let r = top; r < Math.min(rows, top + block[0]); r++)
        for (let c = left; c < Math.min(columns, left + block[1]); c++) inside.push(r * columns + c);
      const amax = Math.max(...inside.map((i) => Math.abs(values[i]!)));
      const byte = amax === 0 ? 0 : Math.max(0, 127 + Math.ceil(Math.log2(amax / 448)));
      const scale = isExponent ? 2 ** (byte - 127) : scaleOf(amax, "F8_E4M3");
      stored.push(...(isExponent ? [byte] : new Uint8Array(Float32Array.of(scale).buffer)));
      for (const i of inside) codes[i] = fp8Code("F8_E4M3", bitsOfF32(values[i]!), scale);
    }
  }
  return { codes, stored };
}

describe("scales", () => {
  it.each([
    [0, 0],
    [448, 127],
    [449, 128],
    [1.75 * 2 ** -30, 127 - 38],
    [2 ** -149, 0],
    [3.4e38, 247],
    [1, 127 - 8],
  ])("the exponent for %d is %d", (amax, byte) => {
    expect(exponentOf(amax)).toBe(byte);
  });

  it("a number that is not finite is named by its index", () => {
    const scales = { from: "BF16", columns: 4, block: [2, 2], isExponent: false } as const;
    const bytes = new Uint8Array(Uint16Array.of(0, 0, 0, 0, 0, 0x7f80, 0, 0).buffer);
    expect(() => castBlocks(scales, bytes)).toThrow(
      expect.objectContaining({ code: "NON_FINITE", at: { index: 5 } }),
    );
  });
});
