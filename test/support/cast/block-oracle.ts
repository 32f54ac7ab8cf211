/**
 * The encoders of ggml's blocks in plain JavaScript, one number at a time, by the definitions of ggml. `Math.fround` after every
 * operation makes it an F32 operation.
 */
import type { BlockTarget } from "../../../src/core/dtype.ts";

const f = Math.fround;

interface Encoder {
  readonly elements: number;
  encode(x: Float32Array): number[];
}

const words = new DataView(new ArrayBuffer(4));
const bitsOf = (value: number): number => {
  words.setFloat32(0, value);
  return words.getInt32(0);
};

/** F16 bits by the definition: the nearest multiple of the unit, ties to even. */
function half(value: number): number {
  const sign = Object.is(Math.sign(value), -0) || value < 0 ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)));
  const unit = 2 ** ((magnitude === 0 ? -14 : exponent) - 10);
  const steps = toEven(magnitude / unit);
  if (steps * unit > 65504) return sign | 0x7c00;
  const [normal, e] = steps === 2048 ? [1024, exponent + 1] : [steps, exponent];
  return sign | (normal < 1024 ? normal : ((e + 15) << 10) | (normal - 1024));
}

function valueOfHalf(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

function toEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

/** ggml's `nearest_int`, which reads the last bits of a sum. */
const nearest = (value: number) => (bitsOf(f(f(value) + 12582912)) & 0x7fffff) - 0x400000;
const clamp = (value: number, least: number, most: number) => Math.max(least, Math.min(most, value));

/** A conversion of x86-64 to an integer, of which the lowest byte is kept. */
const byteOf = (value: number) => (Math.abs(value) < 2 ** 31 ? Math.trunc(value) & 255 : 0);
const pair = (bits: number) => [bits & 255, bits >> 8];
const inverseOf = (d: number) => (d === 0 ? 0 : f(1 / d));

function outermost(x: Iterable<number>): number {
  let [most, found] = [0, 0];
  for (const v of x) if (Math.abs(v) > most) [most, found] = [Math.abs(v), v];
  return found;
}

const nibbles = (codes: readonly number[]) =>
  codes.slice(0, 16).map((code, j) => (code & 15) | ((codes[j + 16]! & 15) << 4));
/** bit j is the fifth bit of code j */
const fifthBits = (codes: readonly number[]) =>
  [0, 8, 16, 24].map((at) =>
    codes.slice(at, at + 8).reduce((byte, code, j) => byte | (((code >> 4) & 1) << j), 0),
  );

function symmetric(middle: number, x: Float32Array): { d: number; codes: number[] } {
  const d = f(outermost(x) / -middle);
  const id = inverseOf(d);
  const codes = [...x].map((v) => Math.min(2 * middle - 1, byteOf(f(f(v * id) + middle + 0.5))));
  return { d: half(d), codes };
}

function ranged(steps: number, x: Float32Array): { d: number; m: number; codes: number[] } {
  let [least, most] = [x[0]!, x[0]!];
  for (const v of x) {
    if (v < least) least = v;
    if (v > most) most = v;
  }
  const d = f(f(most - least) / steps);
  const id = inverseOf(d);
  const codes = [...x].map((v) => Math.min(steps, byteOf(f(f(f(v - least) * id) + 0.5))));
  return { d: half(d), m: half(least), codes };
}

/** Scale, minimum with its sign changed, and codes of 32 numbers. */
function fitRange(
  x: readonly number[],
  steps: number,
  offset: number,
  last: number,
): { s: number; lo: number; codes: number[] } {
  let squares = 0;
  for (const v of x) squares = f(squares + f(v * v));
  const mean = f(Math.sqrt(f(squares / 32)));
  const w = x.map((v) => f(mean + Math.abs(v)));
  let [least, most] = [x[0]!, x[0]!];
  let [sumW, sumX] = [0, 0];
  x.forEach((v, i) => {
    if (v < least) least = v;
    if (v > most) most = v;
    sumW = f(sumW + w[i]!);
    sumX = f(sumX + f(w[i]! * v));
  });
  if (least > 0) least = 0;
  if (most === least) return { s: 0, lo: -least, codes: x.map(() => 0) };
  const codesBy = (is: number, min: number) => x.map((v) => clamp(nearest(f(is * f(v - min))), 0, steps));
  const errorOf = (codes: number[], s: number, min: number) => {
    let error = 0;
    codes.forEach((code, i) => {
      const e = f(f(f(s * code) + min) - x[i]!);
      error = f(error + f(w[i]! * f(e * e)));
    });
    return error;
  };
  const first = f(steps / f(most - least));
  let codes = codesBy(first, least);
  let s = f(1 / first);
  let min = least;
  let error = errorOf(codes, s, min);
  for (let i = 0; i <= last; i++) {
    const is = f(f(f(offset + f(f(0.1) * i)) + steps) / f(most - min));
    const tried = codesBy(is, min);
    let [l, ll, lx] = [0, 0, 0];
    tried.forEach((code, j) => {
      const weighted = f(w[j]! * code);
      l = f(l + weighted);
      ll = f(ll + f(weighted * code));
      lx = f(lx + f(weighted * x[j]!));
    });
    const determinant = f(f(sumW * ll) - f(l * l));
    if (!(determinant > 0)) continue;
    let newS = f(f(f(sumW * lx) - f(sumX * l)) / determinant);
    let newMin = f(f(f(ll * sumX) - f(l * lx)) / determinant);
    if (newMin > 0) [newMin, newS] = [0, f(lx / ll)];
    const newError = errorOf(tried, newS, newMin);
    if (newError < error) [codes, s, min, error] = [tried, newS, newMin, newError];
  }
  return { s, lo: -min, codes };
}

function ranges(x: Float32Array, steps: number, offset: number, last: number): number[] {
  const subBlocks = Array.from({ length: 8 }, (_, j) => [...x.subarray(32 * j, 32 * j + 32)]);
  const fits = subBlocks.map((sub) => fitRange(sub, steps, offset, last));
  const mostS = fits.reduce((most, { s }) => (s > most ? s : most), 0);
  const mostLo = fits.reduce((most, { lo }) => (lo > most ? lo : most), 0);
  const sixBits = (value: number, most: number) =>
    most > 0 ? Math.min(63, nearest(f(f(63 / most) * value)) & 255) : 0;
  const ls = fits.map(({ s }) => sixBits(s, mostS));
  const lm = fits.map(({ lo }) => sixBits(lo, mostLo));
  const [d, dmin] = [half(f(mostS / 63)), half(f(mostLo / 63))];
  const packed = new Array<number>(12).fill(0);
  for (let j = 0; j < 8; j++) {
    if (j < 4) [packed[j], packed[j + 4]] = [ls[j]!, lm[j]!];
    else {
      packed[j + 4] = (ls[j]! & 15) | ((lm[j]! & 15) << 4);
      packed[j - 4]! |= (ls[j]! >> 4) << 6;
      packed[j]! |= (lm[j]! >> 4) << 6;
    }
  }
  const codes = subBlocks.flatMap((sub, j) => {
    const step = f(valueOfHalf(d) * ls[j]!);
    const low = f(valueOfHalf(dmin) * lm[j]!);
    if (step === 0) return fits[j]!.codes;
    return sub.map((v) => clamp(nearest(f(f(v + low) / step)), 0, steps));
  });
  const high = Array.from({ length: 32 }, (_, l) =>
    codes.reduce((byte, code, i) => (i % 32 === l ? byte | ((code >> 4) << Math.floor(i / 32)) : byte), 0),
  );
  const low = [0, 64, 128, 192].flatMap((at) =>
    Array.from({ length: 32 }, (_, l) => (codes[at + l]! & 15) | ((codes[at + 32 + l]! & 15) << 4)),
  );
  return [...pair(d), ...pair(dmin), ...packed, ...(steps === 31 ? high : []), ...low];
}

/** Scale and stored codes, 0 to 63, of 16 numbers. */
function fitSymmetric(x: readonly number[]): { s: number; codes: number[] } {
  const m = outermost(x);
  if (Math.abs(m) < f(1e-15)) return { s: 0, codes: x.map(() => 0) };
  const tryWith = (is: number) => {
    const codes = x.map((v) => clamp(nearest(f(is * v)), -32, 31));
    let [a, b] = [0, 0];
    codes.forEach((code, i) => {
      const w = f(x[i]! * x[i]!);
      a = f(a + f(f(w * x[i]!) * code));
      b = f(b + f(f(w * code) * code));
    });
    return { codes, a, b };
  };
  let { codes, a, b } = tryWith(f(-32 / m));
  let s = b === 0 ? 0 : f(a / b);
  let best = f(s * a);
  for (let i = -9; i <= 9; i++) {
    if (i === 0) continue;
    const tried = tryWith(f(-f(32 + f(f(0.1) * i)) / m));
    if (!(tried.b > 0 && f(tried.a * tried.a) > f(best * tried.b))) continue;
    ({ codes, a, b } = tried);
    s = f(a / b);
    best = f(s * a);
  }
  return { s, codes: codes.map((code) => code + 32) };
}

function encodeQ6(x: Float32Array): number[] {
  const subBlocks = Array.from({ length: 16 }, (_, j) => [...x.subarray(16 * j, 16 * j + 16)]);
  const fits = subBlocks.map(fitSymmetric);
  const most = outermost(fits.map(({ s }) => s));
  if (Math.abs(most) < f(1e-15)) return new Array<number>(210).fill(0);
  const is = f(-128 / most);
  const d = half(f(1 / is));
  const scales = fits.map(({ s }) => Math.min(127, nearest(f(is * s))));
  const codes = subBlocks.flatMap((sub, j) => {
    const step = f(valueOfHalf(d) * scales[j]!);
    return step === 0 ? fits[j]!.codes : sub.map((v) => clamp(nearest(f(v / step)), -32, 31) + 32);
  });
  const [ql, qh]: [number[], number[]] = [[], []];
  for (const at of [0, 128]) {
    const quarters = [0, 32, 64, 96].map((q) => codes.slice(at + q, at + q + 32));
    const [a, b, c, e] = quarters as [number[], number[], number[], number[]];
    for (let l = 0; l < 32; l++) {
      ql[at / 2 + l] = (a[l]! & 15) | ((c[l]! & 15) << 4);
      ql[at / 2 + 32 + l] = (b[l]! & 15) | ((e[l]! & 15) << 4);
      qh.push((a[l]! >> 4) | ((b[l]! >> 4) << 2) | ((c[l]! >> 4) << 4) | ((e[l]! >> 4) << 6));
    }
  }
  return [...ql, ...qh, ...scales.map((scale) => scale & 255), ...pair(d)];
}

const awayFromZero = (value: number) => Math.sign(value) * Math.floor(Math.abs(value) + 0.5);

const ENCODERS: Readonly<Record<BlockTarget, Encoder>> = {
  Q8_0: {
    elements: 32,
    encode: (x) => {
      const d = f(Math.abs(outermost(x)) / 127);
      const id = inverseOf(d);
      return [...pair(half(d)), ...[...x].map((v) => byteOf(awayFromZero(f(v * id))))];
    },
  },
  Q4_0: {
    elements: 32,
    encode: (x) => {
      const { d, codes } = symmetric(8, x);
      return [...pair(d), ...nibbles(codes)];
    },
  },
  Q5_0: {
    elements: 32,
    encode: (x) => {
      const { d, codes } = symmetric(16, x);
      return [...pair(d), ...fifthBits(codes), ...nibbles(codes)];
    },
  },
  Q4_1: {
    elements: 32,
    encode: (x) => {
      const { d, m, codes } = ranged(15, x);
      return [...pair(d), ...pair(m), ...nibbles(codes)];
    },
  },
  Q5_1: {
    elements: 32,
    encode: (x) => {
      const { d, m, codes } = ranged(31, x);
      return [...pair(d), ...pair(m), ...fifthBits(codes), ...nibbles(codes)];
    },
  },
  Q4_K: { elements: 256, encode: (x) => ranges(x, 15, -1, 20) },
  Q5_K: { elements: 256, encode: (x) => ranges(x, 31, -0.5, 15) },
  Q6_K: { elements: 256, encode: encodeQ6 },
};

/** The bytes of the blocks of these numbers, all finite. */
export function encodeBlocksPlainly(dtype: BlockTarget, numbers: Float32Array): Uint8Array {
  const { elements, encode } = ENCODERS[dtype];
  const bytes: number[] = [];
  for (let at = 0; at < numbers.length; at += elements)
    bytes.push(...encode(numbers.subarray(at, at + elements)));
  return Uint8Array.from(bytes);
}
