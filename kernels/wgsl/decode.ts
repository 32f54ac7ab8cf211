/**
 * Decodes stored elements to F32 exactly. Exponents are re-biased as integers, because a float product replaces
 * subnormals by zero on many devices. NaNs are made from bits.
 */
import { type FloatDType, isDecodedBlock, type NumericDType } from "../../src/core/dtype.ts";
import { blockLoader } from "./decode-blocks.ts";
import { F16_WGSL } from "./f16.ts";

/** `bitsOf(codes)`: F32 bits of four codes. */
const BITS: Readonly<Record<FloatDType, string>> = {
  F32: "fn bitsOf(code: vec4u) -> vec4u { return code; }",
  BF16: "fn bitsOf(code: vec4u) -> vec4u { return code << vec4u(16u); }",
  F16: `${F16_WGSL}\nfn bitsOf(code: vec4u) -> vec4u { return f16Bits(code); }`,
  // E5M2 is the upper half of an F16.
  F8_E5M2: `${F16_WGSL}\nfn bitsOf(code: vec4u) -> vec4u { return f16Bits(code << vec4u(8u)); }`,
  // E4M3 has no infinities; the code of all ones is NaN.
  F8_E4M3: `
fn bitsOf(code: vec4u) -> vec4u {
  let magnitude = (code & vec4u(0x7fu)) << vec4u(20u);
  let sign = (code & vec4u(0x80u)) << vec4u(24u);
  let tiny = bitcast<vec4f>(magnitude + vec4u(121u << 23u)) - vec4f(0x1p-6);
  let number = select(magnitude + vec4u(120u << 23u), bitcast<vec4u>(tiny), magnitude < vec4u(1u << 23u));
  return sign | select(number, vec4u(0x7fc00000u), magnitude == vec4u(0x7fu << 20u));
}`,
};

interface Loader {
  /** WGSL type of an element of the array */
  readonly type: string;
  /** WGSL that defines `codes(at)`: the codes of elements [at, at + 4) as integers */
  readonly code: (array: string) => string;
}

/** For `at` that is always a multiple of four. */
const ALIGNED: Readonly<Record<1 | 2 | 4, Loader>> = {
  4: { type: "vec4u", code: (array) => `fn codes(at: u32) -> vec4u { return ${array}[at >> 2u]; }` },
  2: {
    type: "vec2u",
    code: (array) => `
fn codes(at: u32) -> vec4u {
  let pairs = ${array}[at >> 2u];
  return vec4u(pairs.x & 0xffffu, pairs.x >> 16u, pairs.y & 0xffffu, pairs.y >> 16u);
}`,
  },
  1: {
    type: "u32",
    code: (array) => `
fn codes(at: u32) -> vec4u {
  return (vec4u(${array}[at >> 2u]) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(0xffu);
}`,
  },
};

/** For any `at`: word by word. The device clamps an index beyond the array, and the result is not used. */
const ONE: Readonly<Record<1 | 2 | 4, (array: string) => string>> = {
  4: (array) => `fn codeAt(at: u32) -> u32 { return ${array}[at]; }`,
  2: (array) => `fn codeAt(at: u32) -> u32 { return (${array}[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu; }`,
  1: (array) => `fn codeAt(at: u32) -> u32 { return (${array}[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu; }`,
};

const unaligned = (width: 1 | 2 | 4): Loader => ({
  type: "u32",
  code: (array) => `${ONE[width](array)}
fn codes(at: u32) -> vec4u {
  return vec4u(codeAt(at), codeAt(at + 1u), codeAt(at + 2u), codeAt(at + 3u));
}`,
});

const WIDTH: Readonly<Record<FloatDType, 1 | 2 | 4>> = { F32: 4, F16: 2, BF16: 2, F8_E4M3: 1, F8_E5M2: 1 };

/**
 * The element type of `array`, and WGSL that defines `storedBits(at)`: the F32 bits of four elements.
 *
 * @param aligned `at` is always a multiple of four; for quantised types it must be
 */
export function storedLoader(
  dtype: NumericDType,
  array: string,
  aligned: boolean,
): { type: string; code: string } {
  if (isDecodedBlock(dtype)) return blockLoader(dtype, array);
  const { type, code } = aligned ? ALIGNED[WIDTH[dtype]] : unaligned(WIDTH[dtype]);
  const bits = "fn storedBits(at: u32) -> vec4u { return bitsOf(codes(at)); }";
  return { type, code: [BITS[dtype], code(array), bits].join("\n") };
}
