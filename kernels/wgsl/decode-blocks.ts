/**
 * Decodes quantised blocks of ggml to F32, exactly: the values of src/core/blocks/values.ts. Every product is exact and no
 * value is subnormal, so a device that fuses operations or replaces subnormals by zero computes the same bits.
 *
 * Blocks of 18, 22, 34, 110 and 210 bytes are not whole words, so bytes are read at any alignment.
 */
import { blockElements, type DecodedBlock, widthOf } from "../../src/core/dtype.ts";
import { F16_WGSL } from "./f16.ts";

/** `wordAt(at)`: the four bytes from byte `at`. The device clamps an index beyond the array; its bytes are not used. */
const words = (array: string): string => `${F16_WGSL}
fn wordAt(at: u32) -> u32 {
  let low = ${array}[at >> 2u];
  let shift = 8u * (at & 3u);
  if (shift == 0u) { return low; }
  return (low >> shift) | (${array}[(at >> 2u) + 1u] << (32u - shift));
}
fn byteAt(at: u32) -> u32 { return (${array}[at >> 2u] >> (8u * (at & 3u))) & 0xffu; }
fn bytesOf(word: u32) -> vec4u { return (vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(0xffu); }
/** The F16 numbers in the lower and in the upper half of a word. */
fn halves(word: u32) -> vec2f { return bitcast<vec4f>(f16Bits(vec4u(word & 0xffffu, word >> 16u, 0u, 0u))).xy; }
/** Four fields of bytes: the mask after a shift to the right. */
fn fields(word: u32, shift: u32, mask: u32) -> vec4u { return (bytesOf(word) >> vec4u(shift)) & vec4u(mask); }
fn signed(bytes: vec4u) -> vec4i { return bitcast<vec4i>(bytes << vec4u(24u)) >> vec4u(24u); }
fn nibbles(at: u32, i: u32) -> vec4u { return fields(wordAt(at + (i & 15u)), (i >> 2u) & 4u, 15u); }
/** Bits i to i + 3 of a word, each as 16. */
fn fifths(word: u32, i: u32) -> vec4u {
  return ((vec4u(word >> i) >> vec4u(0u, 1u, 2u, 3u)) & vec4u(1u)) << vec4u(4u);
}`;

/** The scale and the minimum of run j of Q4_K and Q5_K, six bits each, in twelve bytes from byte 4 of a block. */
const SIX_BITS = `
fn sixBits(b: u32, j: u32) -> vec2f {
  let s = b + 4u + j;
  if (j < 4u) { return vec2f(vec2u(byteAt(s), byteAt(s + 4u)) & vec2u(63u)); }
  let low = byteAt(s + 4u);
  let high = (vec2u(byteAt(s - 4u), byteAt(s)) >> vec2u(6u)) << vec2u(4u);
  return vec2f((vec2u(low, low >> 4u) & vec2u(15u)) | high);
}`;

/** The values that a code of IQ4_NL and IQ4_XS selects: sixteen signed bytes. */
const IQ4_VALUES = `
fn iq4(codes: vec4u) -> vec4f {
  let table = vec4u(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);
  var bytes: vec4u;
  for (var i = 0u; i < 4u; i++) { bytes[i] = table[codes[i] >> 2u] >> (8u * (codes[i] & 3u)); }
  return vec4f(signed(bytes));
}`;

/**
 * `four(b, i)`: elements i to i + 3 of the block at byte b, where i is a multiple of four. In blocks of 256, j is the run
 * of 16 and l the place in the bytes that the four runs of 32 of a half share.
 */
const FOUR: Readonly<Record<DecodedBlock, string>> = {
  Q8_0: `
fn four(b: u32, i: u32) -> vec4f {
  return vec4f(signed(bytesOf(wordAt(b + 2u + i)))) * halves(wordAt(b)).x;
}`,
  Q4_0: `
fn four(b: u32, i: u32) -> vec4f {
  return vec4f(vec4i(nibbles(b + 2u, i)) - vec4i(8)) * halves(wordAt(b)).x;
}`,
  Q4_1: `
fn four(b: u32, i: u32) -> vec4f {
  let d = halves(wordAt(b));
  return vec4f(nibbles(b + 4u, i)) * d.x + vec4f(d.y);
}`,
  Q5_0: `
fn four(b: u32, i: u32) -> vec4f {
  let code = nibbles(b + 6u, i) | fifths(wordAt(b + 2u), i);
  return vec4f(vec4i(code) - vec4i(16)) * halves(wordAt(b)).x;
}`,
  Q5_1: `
fn four(b: u32, i: u32) -> vec4f {
  let d = halves(wordAt(b));
  return vec4f(nibbles(b + 8u, i) | fifths(wordAt(b + 4u), i)) * d.x + vec4f(d.y);
}`,
  IQ4_NL: `${IQ4_VALUES}
fn four(b: u32, i: u32) -> vec4f { return iq4(nibbles(b + 2u, i)) * halves(wordAt(b)).x; }`,
  Q2_K: `
fn four(b: u32, i: u32) -> vec4f {
  let d = halves(wordAt(b + 80u));
  let scales = byteAt(b + (i >> 4u));
  let code = fields(wordAt(b + 16u + 32u * (i >> 7u) + (i & 31u)), 2u * ((i >> 5u) & 3u), 3u);
  return vec4f(code) * (d.x * f32(scales & 15u)) - vec4f(d.y * f32(scales >> 4u));
}`,
  Q3_K: `
fn four(b: u32, i: u32) -> vec4f {
  let j = i >> 4u;
  let l = i & 31u;
  let low = (byteAt(b + 96u + (j & 7u)) >> (4u * (j >> 3u))) & 15u;
  let high = (byteAt(b + 104u + (j & 3u)) >> (2u * (j >> 2u))) & 3u;
  let scale = halves(wordAt(b + 108u)).x * f32(i32(low | (high << 4u)) - 32);
  let code = fields(wordAt(b + 32u + 32u * (i >> 7u) + l), 2u * ((i >> 5u) & 3u), 3u);
  let mask = fields(wordAt(b + l), i >> 5u, 1u) << vec4u(2u);
  return vec4f(vec4i(code | mask) - vec4i(4)) * scale;
}`,
  Q4_K: `${SIX_BITS}
fn four(b: u32, i: u32) -> vec4f {
  let d = halves(wordAt(b)) * sixBits(b, i >> 5u);
  let code = fields(wordAt(b + 16u + 32u * (i >> 6u) + (i & 31u)), (i >> 3u) & 4u, 15u);
  return vec4f(code) * d.x - vec4f(d.y);
}`,
  Q5_K: `${SIX_BITS}
fn four(b: u32, i: u32) -> vec4f {
  let l = i & 31u;
  let d = halves(wordAt(b)) * sixBits(b, i >> 5u);
  let low = fields(wordAt(b + 48u + 32u * (i >> 6u) + l), (i >> 3u) & 4u, 15u);
  let high = fields(wordAt(b + 16u + l), i >> 5u, 1u) << vec4u(4u);
  return vec4f(low | high) * d.x - vec4f(d.y);
}`,
  Q6_K: `
fn four(b: u32, i: u32) -> vec4f {
  let quarter = (i >> 5u) & 3u;
  let l = i & 31u;
  let low = fields(wordAt(b + 64u * (i >> 7u) + 32u * (quarter & 1u) + l), 4u * (quarter >> 1u), 15u);
  let high = fields(wordAt(b + 128u + 32u * (i >> 7u) + l), 2u * quarter, 3u) << vec4u(4u);
  let scale = halves(wordAt(b + 208u)).x * f32(signed(vec4u(byteAt(b + 192u + (i >> 4u)))).x);
  return vec4f(vec4i(low | high) - vec4i(32)) * scale;
}`,
  IQ4_XS: `${IQ4_VALUES}
fn four(b: u32, i: u32) -> vec4f {
  let j = i >> 5u;
  let low = (byteAt(b + 4u + (j >> 1u)) >> (4u * (j & 1u))) & 15u;
  let high = (byteAt(b + 2u + (j >> 2u)) >> (2u * (j & 3u))) & 3u;
  let scale = halves(wordAt(b)).x * f32(i32(low | (high << 4u)) - 32);
  return iq4(nibbles(b + 8u + 16u * j, i)) * scale;
}`,
};

/** As `storedLoader` in decode.ts. `at` is always a multiple of four. */
export function blockLoader(dtype: DecodedBlock, array: string): { type: string; code: string } {
  const elements = blockElements(dtype);
  const bits = `
fn storedBits(at: u32) -> vec4u {
  return bitcast<vec4u>(four(at / ${elements}u * ${elements * widthOf(dtype)}u, at % ${elements}u));
}`;
  return { type: "u32", code: [words(array), FOUR[dtype], bits].join("\n") };
}
