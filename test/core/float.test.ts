import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { OCP_TYPES } from "../../src/core/dtype.ts";
import { decode, encode, encodeBits, f32OfBits, NARROW, tableOf } from "../../src/core/float.ts";

const casts = (name: string) => readFileSync(new URL(`../../fixtures/casts/${name}`, import.meta.url));
const u16 = (b: Buffer) => new Uint16Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength));
const u32 = (b: Buffer) => new Uint32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength));
const clamp = (value: number, max: number) => Math.max(Math.min(value, max), -max);

describe("every code decodes to the value that torch gives it", () => {
  it.each(["F8_E4M3", "F8_E5M2"] as const)("%s", (dtype) => {
    const expected = u32(casts(`${dtype.slice(3).toLowerCase()}_to_f32.bin`));
    for (let code = 0; code < 256; code++) {
      const value = decode(dtype, code);
      if (Number.isNaN(f32OfBits(expected[code]!))) expect(value).toBeNaN();
      else expect(value).toBe(f32OfBits(expected[code]!));
    }
  });
});

describe("every code of AMD's FP8 has the value that torch gives it, half of its OCP value where both are numbers", () => {
  it.each([
    ["F8_E4M3FNUZ", 4],
    ["F8_E5M2FNUZ", 10],
  ] as const)("%s", (dtype, unlike) => {
    const expected = u32(casts(`${dtype.slice(3).toLowerCase()}_to_f32.bin`));
    const ocp = tableOf(OCP_TYPES[dtype]);
    const values = tableOf(dtype);
    let halves = 0;
    for (let code = 0; code < 256; code++) {
      const want = f32OfBits(expected[code]!);
      expect(Object.is(values[code], want), `0x${code.toString(16)}: ${values[code]}, not ${want}`).toBe(
        true,
      );
      if (values[code]! * 2 === ocp[code]) halves++;
    }
    // unlike: 0x80, which is NaN here and -0 there, and the OCP codes of NaN and infinity
    expect(halves).toBe(256 - unlike + 1);
  });
});

describe("all 65,536 BF16 patterns narrow as torch and ml_dtypes narrow them", () => {
  it.each([
    ["F8_E4M3", "bf16_to_e4m3_sat.bin", "clamp"],
    ["F8_E4M3", "bf16_to_e4m3_nonsat.bin", "plain"],
    ["F8_E5M2", "bf16_to_e5m2_sat.bin", "clamp"],
    ["F8_E5M2", "bf16_to_e5m2_torch.bin", "plain"],
  ] as const)("%s as %s", (dtype, file, mode) => {
    const expected = casts(file);
    const values = tableOf("BF16");
    for (let bits = 0; bits < 65536; bits++) {
      const value = values[bits]!;
      const code = Number.isNaN(value)
        ? encodeBits(dtype, (bits << 16) >>> 0)
        : encode(dtype, mode === "clamp" ? clamp(value, NARROW[dtype].max) : value);
      const want = expected[bits]!;
      if (Number.isNaN(decode(dtype, want))) {
        expect(decode(dtype, code)).toBeNaN();
        expect(code >> 7).toBe(want >> 7);
      } else if (code !== want) expect.fail(`bf16 ${bits.toString(16)}: ${code} is not ${want}`);
    }
  });

  it("F16, overflowing to infinity", () => {
    const expected = u16(casts("bf16_to_f16.bin"));
    for (let bits = 0; bits < 65536; bits++) {
      const code = encodeBits("F16", (bits << 16) >>> 0);
      if (Number.isNaN(decode("F16", expected[bits]!))) expect(decode("F16", code)).toBeNaN();
      else if (code !== expected[bits])
        expect.fail(`bf16 ${bits.toString(16)}: ${code} is not ${expected[bits]}`);
    }
  });
});

it("F16 to BF16 rounds once, NaN keeping its sign", () => {
  const expected = u16(casts("f16_to_bf16.bin"));
  for (let bits = 0; bits < 65536; bits++) {
    const value = decode("F16", bits);
    if (Number.isNaN(value)) continue;
    if (encode("BF16", value) !== expected[bits]) expect.fail(`f16 ${bits.toString(16)}`);
  }
});

describe("F32 narrows as the goldens say", () => {
  it("BF16, 200,000 patterns", () => {
    const [from, to] = [u32(casts("f32_to_bf16.in.bin")), u16(casts("f32_to_bf16.out.bin"))];
    for (let i = 0; i < from.length; i++) {
      if (encodeBits("BF16", from[i]!) !== to[i]) expect.fail(`f32 ${from[i]!.toString(16)}`);
    }
  });

  it.each([
    ["F8_E4M3", "e4m3", "sat"],
    ["F8_E4M3", "e4m3", "nonsat"],
    ["F8_E5M2", "e5m2", "sat"],
    ["F8_E5M2", "e5m2", "torch"],
  ] as const)("%s, 60,000 patterns, %s %s", (dtype, name, mode) => {
    const [from, to] = [u32(casts(`f32_to_${name}.in.bin`)), casts(`f32_to_${name}.${mode}.bin`)];
    for (let i = 0; i < from.length; i++) {
      const value = f32OfBits(from[i]!);
      const nan = Number.isNaN(value);
      const code = nan
        ? encodeBits(dtype, from[i]!)
        : encode(dtype, mode === "sat" ? clamp(value, NARROW[dtype].max) : value);
      if (Number.isNaN(decode(dtype, to[i]!))) expect(decode(dtype, code)).toBeNaN();
      else if (code !== to[i]) expect.fail(`f32 ${from[i]!.toString(16)}: ${code} is not ${to[i]}`);
    }
  });
});
