import { beforeAll, describe, expect, it } from "vitest";
import { scaleOf } from "../../src/cast/cast.ts";
import { type Fp8, fp8Code, halfToFp8, widenBits } from "../../src/cast/table.ts";
import { type FloatDType, isFp8, widthOf } from "../../src/core/dtype.ts";
import { bitsOfF32, decode, encodeBits, f32OfBits, NARROW, type NarrowDType } from "../../src/core/float.ts";
import { arenaOf, castBytes, casts, everyCode, everyHalf, seeded, u16, u32 } from "../support/cast/arena.ts";
import type { Arena } from "../support/cast/tensor.ts";

let arena: Arena;
beforeAll(async () => {
  arena = await arenaOf(4 * 1024 * 1024);
});

const FP8 = ["F8_E4M3", "F8_E5M2"] as const;
const HALVES = ["BF16", "F16"] as const;

/** Equal codes; where NaN is expected, any NaN, of the same sign unless the golden's own sign means nothing. */
function expectCodes(
  dtype: NarrowDType,
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  { signOfNaN = true } = {},
): void {
  expect(found.length).toBe(expected.length);
  const top = 8 * widthOf(dtype) - 1;
  for (let i = 0; i < expected.length; i++) {
    const [a, b] = [found[i]!, expected[i]!];
    if (a === b) continue;
    const bothNaN = Number.isNaN(decode(dtype, a)) && Number.isNaN(decode(dtype, b));
    if (!bothNaN || (signOfNaN && a >>> top !== b >>> top))
      expect.fail(`element ${i}: ${dtype} ${a} is not ${b}`);
  }
}

describe("all casts that torch and ml_dtypes recorded", () => {
  it.each([
    ["F8_E4M3", "bf16_to_e4m3_sat.bin"],
    ["F8_E5M2", "bf16_to_e5m2_sat.bin"],
  ] as const)("every BF16 to %s", (to, file) => {
    expectCodes(to, castBytes(arena, "BF16", to, everyHalf).bytes, casts(file));
  });

  it.each([
    ["F8_E4M3", "f32_to_e4m3"],
    ["F8_E5M2", "f32_to_e5m2"],
  ] as const)("F32 to %s: values, midpoints and their neighbours", (to, file) => {
    const { bytes } = castBytes(arena, "F32", to, casts(`${file}.in.bin`));
    expectCodes(to, bytes, casts(`${file}.sat.bin`));
  });

  it("F32 to BF16, bytes of NaN included", () => {
    const { bytes } = castBytes(arena, "F32", "BF16", casts("f32_to_bf16.in.bin"));
    expect(Buffer.compare(bytes, casts("f32_to_bf16.out.bin"))).toBe(0);
  });

  it.each([
    ["BF16", "F16", "bf16_to_f16.bin"],
    ["F16", "BF16", "f16_to_bf16.bin"],
  ] as const)("every %s to %s", (from, to, file) => {
    expectCodes(to, u16(castBytes(arena, from, to, everyHalf).bytes), u16(casts(file)));
  });

  it.each([
    ["F8_E4M3", "e4m3"],
    ["F8_E5M2", "e5m2"],
  ] as const)("every %s to BF16 and F32", (from, file) => {
    expectCodes(
      "BF16",
      u16(castBytes(arena, from, "BF16", everyCode).bytes),
      u16(casts(`${file}_to_bf16.bin`)),
      {
        signOfNaN: false,
      },
    );
    const wide = u32(castBytes(arena, from, "F32", everyCode).bytes);
    u32(casts(`${file}_to_f32.bin`)).forEach((bits, code) => {
      if (Number.isNaN(f32OfBits(bits))) expect(f32OfBits(wide[code]!)).toBeNaN();
      else expect(wide[code]).toBe(bits);
    });
  });
});

describe("the fast forms are the definitions, bit for bit", () => {
  it.each(HALVES)("every %s widens to F32", (from) => {
    const wide = u32(castBytes(arena, from, "F32", everyHalf).bytes);
    for (let code = 0; code < 65536; code++) {
      if (wide[code] !== widenBits(from, code)) expect.fail(`${from} ${code} became ${wide[code]}`);
    }
  });

  const scales = [
    1,
    448,
    2 ** -149,
    6.151700258385947e-43,
    2 ** -126,
    3.0517578125e-5,
    0.00018092563550453633,
  ];
  const random = seeded(8);
  for (let i = 0; i < 6; i++) scales.push(Math.fround(2 ** (random() * 60 - 40)));

  it.each(HALVES.flatMap((from) => FP8.map((to) => [from, to] as const)))(
    "%s to %s by bisection",
    (from, to) => {
      for (const scale of scales) {
        const table = halfToFp8(from, to, scale);
        const found = castBytes(arena, from, to, everyHalf, { scale }).bytes;
        expect(Buffer.compare(found, table)).toBe(0);
        for (let code = 0; code < 65536; code++) {
          const want = fp8Code(to, widenBits(from, code), scale);
          if (table[code] !== want) expect.fail(`${from} ${code} / ${scale}: ${table[code]} is not ${want}`);
        }
      }
    },
  );

  /** Patterns of every kind: all exponents, ties and their neighbours, subnormals, infinities, NaNs. */
  const f32s = Uint32Array.from({ length: 150_000 }, (_, i) => {
    const bits = Math.floor(random() * 2 ** 32) >>> 0;
    return i % 3 === 0 ? bits : ((bits & 0xfff00000) | [0, 1, 0x7ffff, 0x80000, 0x80001][i % 5]!) >>> 0;
  });
  f32s.set([
    0, 0x80000000, 0x7f800000, 0xff800000, 0x7f800001, 0xffffffff, 0x477fefff, 0x477ff000, 0x33000000,
  ]);

  it.each(FP8)("F32 to %s, vector and tail, under every scale", (to) => {
    for (const scale of scales) {
      const { bytes } = castBytes(arena, "F32", to, new Uint8Array(f32s.buffer), { scale });
      bytes.forEach((code, i) => {
        const want = fp8Code(to, f32s[i]!, scale);
        if (code !== want) expect.fail(`F32 ${f32s[i]!.toString(16)} / ${scale}: ${code} is not ${want}`);
      });
    }
  });

  it.each(HALVES)("F32 to %s", (to) => {
    const found = u16(castBytes(arena, "F32", to, new Uint8Array(f32s.buffer)).bytes);
    f32s.forEach((bits, i) => {
      if (found[i] !== encodeBits(to, bits)) expect.fail(`F32 ${bits.toString(16)} became ${found[i]}`);
    });
  });

  it.each(FP8.flatMap((from) => (["F32", "BF16", "F16", ...FP8] as const).map((to) => [from, to] as const)))(
    "%s under a scale to %s: code x scale in F32, rounded once",
    (from, to) => {
      for (const sourceScale of scales) {
        const scale = isFp8(to) ? 0.046875 : null; // none of the source's, or the bits would be copied
        const { bytes } = castBytes(arena, from, to, everyCode, { sourceScale, scale });
        const found = widthOf(to) === 4 ? u32(bytes) : widthOf(to) === 2 ? u16(bytes) : bytes;
        for (let code = 0; code < 256; code++) {
          const value = Math.fround(decode(from, code) * sourceScale);
          if (Number.isNaN(value)) continue;
          const bits = bitsOfF32(value);
          const want = to === "F32" ? bits : isFp8(to) ? fp8Code(to, bits, scale!) : encodeBits(to, bits);
          if (found[code] !== want)
            expect.fail(`${from} ${code} x ${sourceScale}: ${found[code]} is not ${want}`);
        }
      }
    },
  );

  it("copies the bits of an FP8 tensor whose scale stays", () => {
    const { bytes } = castBytes(arena, "F8_E5M2", "F8_E5M2", everyCode, { scale: 0.75, sourceScale: 0.75 });
    expect(bytes).toEqual(everyCode);
  });
});

describe("amax", () => {
  const all: readonly FloatDType[] = ["F32", ...HALVES, ...FP8];

  it.each(all)("of %s is the largest magnitude, wherever it lies and however long the run", (dtype) => {
    const width = widthOf(dtype);
    const codeOf = (value: number) =>
      dtype === "F32" ? bitsOfF32(value) : encodeBits(dtype, bitsOfF32(value));
    for (const count of [0, 1, 2, 15, 16, 17, 31, 33, 64, 67]) {
      for (let peak = 0; peak < count; peak++) {
        const bytes = new Uint8Array(arena.memory.buffer, arena.at, count * width).fill(1);
        const code = codeOf(peak % 2 === 0 ? -6 : 6);
        for (let b = 0; b < width; b++) bytes[peak * width + b] = code >>> (8 * b);
        expect(arena.caster.amax(dtype, arena.at, count)).toBe(6);
      }
    }
    expect(arena.caster.amax(dtype, arena.at, 0)).toBe(0);
  });

  it.each(all)("of %s refuses what is no number, by its index", (dtype) => {
    const width = widthOf(dtype);
    const codes = {
      F32: [0x7f800000, 0xffc00001],
      BF16: [0x7f80, 0xffc0],
      F16: [0xfc00, 0x7c01],
      F8_E4M3: [0x7f, 0xff],
      F8_E5M2: [0x7c, 0xfd],
    }[dtype];
    for (const code of codes) {
      const bytes = new Uint8Array(arena.memory.buffer, arena.at, 100 * width).fill(0);
      for (const index of [97, 40, 3]) {
        for (let b = 0; b < width; b++) bytes[index * width + b] = code >>> (8 * b);
        expect(() => arena.caster.amax(dtype, arena.at, 100)).toThrow(
          expect.objectContaining({ code: "NON_FINITE", at: { index } }),
        );
      }
    }
  });
});

describe("what a run holds is counted", () => {
  const all: readonly FloatDType[] = ["F32", ...HALVES, ...FP8];
  const codes = {
    F32: { zero: 0x80000000, subnormal: 0x807fffff, normal: 0x800000, infinity: 0x7f800000, nan: 0xff800001 },
    BF16: { zero: 0x8000, subnormal: 0x807f, normal: 0x80, infinity: 0x7f80, nan: 0xff81 },
    F16: { zero: 0x8000, subnormal: 0x83ff, normal: 0x400, infinity: 0x7c00, nan: 0xfc01 },
    F8_E4M3: { zero: 0x80, subnormal: 0x87, normal: 8, infinity: 0x7e, nan: 0xff }, // 448 for want of infinity
    F8_E5M2: { zero: 0x80, subnormal: 0x83, normal: 4, infinity: 0x7c, nan: 0xfd },
  };
  const put = (dtype: FloatDType, values: readonly number[]) => {
    const width = widthOf(dtype);
    const bytes = new Uint8Array(arena.memory.buffer, arena.at, values.length * width);
    for (const [i, code] of values.entries()) {
      for (let b = 0; b < width; b++) bytes[i * width + b] = code >>> (8 * b);
    }
  };

  it.each(all)("zeros and subnormal numbers of %s, wherever they lie and however long the run", (dtype) => {
    const { zero, subnormal, normal } = codes[dtype];
    const random = seeded(11);
    for (const count of [0, 1, 3, 16, 33, 63, 64, 71, 130, 255 * 64 + 65, 2 ** 19 + 37]) {
      const values = Array.from(
        { length: count },
        () => [zero, 0, subnormal, normal][Math.floor(4 * random())]!,
      );
      put(dtype, values);
      const zeros = values.filter((code) => code === zero || code === 0).length;
      expect(arena.caster.zeros(dtype, arena.at, count)).toBe(zeros);
      const normals = values.filter((code) => code === normal).length;
      expect(arena.caster.subnormals(dtype, arena.at, count)).toBe(count - normals);
    }
  });

  it.each(all)("%s of zeros or NaNs alone is dead, whatever else is not", (dtype) => {
    const { zero, subnormal, infinity, nan } = codes[dtype];
    const deadness = (values: readonly number[]) => {
      put(dtype, values);
      return arena.caster.emptyKind(dtype, arena.at, values.length);
    };
    for (const count of [1, 16, 37]) {
      const all = (code: number) => Array.from({ length: count }, () => code);
      expect(deadness(all(zero))).toBe("zero");
      expect(deadness(all(nan))).toBe("NaN");
      expect(deadness(all(infinity))).toBeNull();
      for (const other of [subnormal, infinity]) {
        for (const at of [0, count - 1]) {
          expect(deadness(all(zero).with(at, other))).toBeNull();
          expect(deadness(all(nan).with(at, other))).toBeNull();
        }
      }
    }
  });
});

describe("overflow", () => {
  const halfOf = (...values: number[]) =>
    new Uint8Array(Uint16Array.from(values, (v) => encodeBits("BF16", bitsOfF32(v))).buffer);
  const f32Of = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);

  it("is the first finite value that became infinite, past values that were infinite before", () => {
    expect(castBytes(arena, "BF16", "F16", halfOf(1, -Infinity, NaN, 65536, 7e4)).overflowAt).toBe(3);
    expect(castBytes(arena, "F32", "F16", f32Of(Infinity, 65519, 65520)).overflowAt).toBe(2);
    expect(castBytes(arena, "F32", "BF16", f32Of(3.3895313892515355e38, 3.4e38)).overflowAt).toBe(1);
    expect(
      castBytes(arena, "F8_E4M3", "F16", Uint8Array.of(0x7f, 0x38, 0x7e), { sourceScale: 1e3 }).overflowAt,
    ).toBe(2);
    expect(
      castBytes(arena, "F8_E4M3", "F32", Uint8Array.of(0x38, 0xfe), { sourceScale: 2 ** 126 }).overflowAt,
    ).toBe(1);
  });

  it("is no event for what was infinite or fits", () => {
    expect(castBytes(arena, "BF16", "F16", halfOf(Infinity, 65280, NaN)).overflowAt).toBe(-1);
    expect(castBytes(arena, "F16", "BF16", everyHalf).overflowAt).toBe(-1);
    expect(castBytes(arena, "BF16", "F32", everyHalf).overflowAt).toBe(-1);
    expect(castBytes(arena, "BF16", "F8_E4M3", halfOf(1e30)).overflowAt).toBe(-1);
  });
});

describe("scaleOf", () => {
  it.each(FP8)("keeps the whole range of %s usable for any amax", (to: Fp8) => {
    const random = seeded(3);
    const amaxes = [2 ** -149, 2 ** -148, 2 ** -133, 2 ** -126, 1e-40, 448, 57344, 3.4028234663852886e38];
    for (let i = 0; i < 2000; i++) amaxes.push(f32OfBits(Math.floor(random() * 0x7f800000)));
    for (const amax of amaxes) {
      const scale = scaleOf(amax, to);
      expect(scale).toBe(Math.fround(scale));
      expect(scale).toBeGreaterThan(0);
      // What is stored for amax is within half a unit of it, so nothing was clipped away.
      const { max, mantissa } = NARROW[to];
      const back = decode(to, fp8Code(to, bitsOfF32(amax), scale)) * scale;
      expect(Math.abs(back - amax)).toBeLessThanOrEqual(Math.max(amax * 2 ** -(mantissa + 1), scale / 2));
      if (amax / max > 2 ** -126)
        expect(fp8Code(to, bitsOfF32(amax), scale)).toBe(to === "F8_E4M3" ? 0x7e : 0x7b);
    }
  });

  it("is 1 for a tensor of zeros, and refuses what is no number", () => {
    expect(scaleOf(0, "F8_E4M3")).toBe(1);
    for (const amax of [NaN, Infinity, -1]) {
      expect(() => scaleOf(amax, "F8_E4M3")).toThrow(expect.objectContaining({ code: "NON_FINITE" }));
    }
  });
});
