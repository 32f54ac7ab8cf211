/**
 * Casts between element types, in WebAssembly, in memory that the caller fills and reads. Narrow types are looked up in
 * tables; F32 is rounded directly, because a step through BF16 would round twice.
 */
import { instantiateModule } from "../../kernels/module.ts";
import { type FloatDType, isFp8, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { bitsOfF32, encode, f32OfBits, NARROW, tableOf } from "../core/float.ts";
import { type Fp8, fp8To, halfToFp8, halfToHalf } from "./table.ts";

/** Memory for the largest table: one 16-bit float type as another. */
const TABLE_BYTES = 65536 * 2;
/** Rows whose errors are summed in one call. */
const ERROR_ROWS = 512;
/** Memory for a table, and behind it for two sums of each row. */
export const SCRATCH_BYTES = TABLE_BYTES + ERROR_ROWS * 16;

/** Least magnitude bits that are not a finite number: infinity, or NaN if the type has no infinity. */
export const NON_FINITE = {
  F32: 0x7f800000,
  BF16: 0x7f80,
  F16: 0x7c00,
  F8_E4M3: 0x7f,
  F8_E5M2: 0x7c,
} as const;

/** A tensor without useful numbers: all elements are 0, or all are NaN. */
export type EmptyKind = "zero" | "NaN";

/** Magnitude bits of the least normal number; those below are subnormal numbers and 0. */
const LEAST_NORMAL = { F32: 0x800000, BF16: 0x80, F16: 0x400, F8_E4M3: 8, F8_E5M2: 4 } as const;

/** Least F32 magnitude that is not rounded to a number of the type: it saturates or becomes infinite. */
export const CLIPPED_FROM = {
  F32: Infinity,
  BF16: f32OfBits(0x7f7f8000),
  F16: 65520,
  F8_E4M3: f32OfBits(bitsOfF32(464) + 1),
  F8_E5M2: 61440,
  F8_E4M3FNUZ: 248,
  F8_E5M2FNUZ: 61440,
  F4: 7,
} as const;

/** The numbers of the types in the kernel for errors. */
const ERROR_KINDS = { F32: 0, BF16: 1, F16: 2, F8_E4M3: 3, F8_E5M2: 4 } as const;

/** Least magnitude bits of a NaN. */
const FIRST_NAN = { F32: 0x7f800001, BF16: 0x7f81, F16: 0x7c01, F8_E4M3: 0x7f, F8_E5M2: 0x7d } as const;

/** From which type to which, with the factors from stored to real values of FP8. */
export interface Cast {
  readonly from: FloatDType;
  readonly to: FloatDType;
  /** of the destination; null: 1 */
  readonly scale: number | null;
  /** of the source; null: 1 */
  readonly sourceScale: number | null;
}

/** Addresses are bytes in the memory, with any alignment; counts and indices are elements. */
export interface Caster {
  /**
   * Largest |stored value| of a run, an F32 value; 0 for an empty run. A scale is not applied.
   *
   * @throws NON_FINITE with the index of the first such element, counted from `at`
   */
  amax(dtype: FloatDType, at: number, count: number): number;

  /** How many elements of a run are 0, of either sign. */
  zeros(dtype: FloatDType, at: number, count: number): number;

  /** How many elements of a run are 0 or subnormal numbers. */
  subnormals(dtype: FloatDType, at: number, count: number): number;

  /** Index of the first NaN of a run, counted from `at`, or -1. */
  firstNaN(dtype: FloatDType, at: number, count: number): number;

  /** Whether all elements of a run that is not empty are 0, or all are NaN; stops at the first other element. */
  emptyKind(dtype: FloatDType, at: number, count: number): EmptyKind | null;

  /**
   * Writes `count` elements of `to` at `toAt`, from those of `from` at `at`. The two runs may not overlap.
   *
   * The value of an element is its exact widening, times `sourceScale` for FP8 sources, rounded once to F32.
   * It is then rounded to nearest, ties to even. FP8 destinations store value / `scale`, saturating; a NaN stays
   * a NaN of its sign. Same type and same scale: the bits are copied.
   *
   * @param scale       factor from stored to real values of an FP8 destination, F32; null means 1
   * @param sourceScale the same for an FP8 source
   * @returns           overflowAt: index of the first finite element that became infinite, or -1
   */
  cast(
    from: FloatDType,
    to: FloatDType,
    scale: number | null,
    sourceScale: number | null,
    at: number,
    toAt: number,
    count: number,
  ): { readonly overflowAt: number };

  /** How many finite elements of `from` exceed the largest number of `to`: their casts saturate or are infinite. */
  clipped(cast: Cast, at: number, count: number): number;

  /**
   * The errors of casts, for each row: the sum of (w - v)^2 and the sum of w^2, F64, where w is the value of an element and
   * v the value of its cast, scales applied. Where only one of the two is a finite number, the first sum is infinite or NaN.
   *
   * @param toAt    elements of `to`
   * @param columns elements of a row; the run is whole rows
   * @returns       [rows, 2]
   */
  errors(cast: Cast, at: number, toAt: number, count: number, columns: number): Float64Array;

  /** Tells the caster that its scratch memory was used by another one. */
  forget(): void;
}

/**
 * Per-tensor FP8 scale: the factor that maps stored values back to real ones.
 *
 * @param amax largest |w| of the whole tensor, F32
 * @returns    amax / max of the type, rounded to F32; 1 when amax is 0, so that an all-zero tensor stays exact.
 *             Never 0: a subnormal scale so coarse that amax itself would be clipped is raised by one unit
 * @throws     NON_FINITE
 * @see        Nemotron-H report (arXiv 2504.03624), per-tensor current scaling
 */
export function scaleOf(amax: number, to: Fp8): number {
  if (!(amax >= 0 && amax < Infinity)) throw new IsologitError("NON_FINITE", `amax is ${amax}`);
  if (amax === 0) return 1;
  const scale = Math.fround(amax / NARROW[to].max);
  const clipped = encode(to, amax / scale) >= NON_FINITE[to];
  return clipped ? f32OfBits(bitsOfF32(scale) + 1) : scale;
}

/** The error for a finite value that `to` cannot hold. */
export function overflowError(to: FloatDType, index: number): IsologitError {
  const max = to === "F32" ? 2 ** 128 * (1 - 2 ** -24) : NARROW[to].max;
  return new IsologitError("OVERFLOW", `a weight exceeds ${max}, the largest ${to}`, { index });
}

/**
 * @param memory    shared; it may grow
 * @param scratchAt address of SCRATCH_BYTES that only this caster uses
 */
export async function createCaster(memory: WebAssembly.Memory, scratchAt: number): Promise<Caster> {
  const wasm = await instantiateModule(memory);
  let loaded = "";

  /** Puts a table at `scratchAt`, unless it is there already. */
  const load = (key: string, make: () => Uint8Array) => {
    if (key !== loaded) new Uint8Array(memory.buffer, scratchAt, SCRATCH_BYTES).set(make());
    loaded = key;
  };
  const magnitude = (dtype: FloatDType, at: number, count: number) =>
    wasm[`amax${8 * widthOf(dtype)}`]!(at, count);
  const reaches = (
    dtype: FloatDType,
    at: number,
    start: number,
    count: number,
    limit: number = NON_FINITE[dtype],
  ) => wasm[`reaches${8 * widthOf(dtype)}`]!(at, start, count, limit);
  const below = (dtype: FloatDType, at: number, count: number, limit: number) =>
    wasm[`below${8 * widthOf(dtype)}`]!(at, count, limit);

  /** A finite number never becomes NaN: an element that was finite and is not any more has overflowed. */
  const firstOverflow = (from: FloatDType, at: number, to: FloatDType, toAt: number, count: number) => {
    if (!mayOverflow(from, to) || magnitude(to, toAt, count) < NON_FINITE[to]) return -1;
    for (let i = reaches(to, toAt, 0, count); i >= 0; i = reaches(to, toAt, i + 1, count)) {
      if (reaches(from, at, i, i + 1) < 0) return i;
    }
    return -1;
  };

  return {
    forget() {
      loaded = "";
    },

    amax(dtype, at, count) {
      const bits = magnitude(dtype, at, count);
      if (bits < NON_FINITE[dtype]) return magnitudeOf(dtype, bits);
      const index = reaches(dtype, at, 0, count);
      throw new IsologitError("NON_FINITE", "a weight is NaN or infinite", { index });
    },

    zeros: (dtype, at, count) => below(dtype, at, count, 1),

    subnormals: (dtype, at, count) => below(dtype, at, count, LEAST_NORMAL[dtype]),

    firstNaN: (dtype, at, count) =>
      magnitude(dtype, at, count) < FIRST_NAN[dtype] ? -1 : reaches(dtype, at, 0, count, FIRST_NAN[dtype]),

    emptyKind(dtype, at, count) {
      if (reaches(dtype, at, 0, count, 1) < 0) return "zero";
      const numbers = FIRST_NAN[dtype];
      const first = reaches(dtype, at, 0, 1, numbers);
      return first === 0 && below(dtype, at, count, numbers) === 0 ? "NaN" : null;
    },

    clipped({ from, to, scale, sourceScale }, at, count) {
      const isClipped = (bits: number) =>
        Math.fround(Math.fround(magnitudeOf(from, bits) * (sourceScale ?? 1)) / (scale ?? 1)) >=
        CLIPPED_FROM[to];
      const infinity = NON_FINITE[from];
      const most = magnitude(from, at, count);
      if (!isClipped(Math.min(most, infinity - 1))) return 0;
      let [held, limit] = [-1, infinity - 1];
      while (limit - held > 1) {
        const middle = (held + limit) >>> 1;
        if (isClipped(middle)) limit = middle;
        else held = middle;
      }
      const finite = most < infinity ? count : below(from, at, count, infinity);
      return finite - (limit === 0 ? 0 : below(from, at, count, limit));
    },

    errors({ from, to, scale, sourceScale }, at, toAt, count, columns) {
      const sums = new Float64Array((2 * count) / columns);
      const sumsAt = scratchAt + TABLE_BYTES;
      const unit = unitOf(
        magnitudeOf(from, Math.min(magnitude(from, at, count), NON_FINITE[from] - 1)) * (sourceScale ?? 1),
      );
      const factors = [Math.fround((sourceScale ?? 1) / unit), Math.fround((scale ?? 1) / unit)] as const;
      for (let row = 0; row * columns < count; row += ERROR_ROWS) {
        const rows = Math.min(ERROR_ROWS, count / columns - row);
        const [a, b] = [at + row * columns * widthOf(from), toAt + row * columns * widthOf(to)];
        const [kind, toKind] = [ERROR_KINDS[from], ERROR_KINDS[to]];
        wasm.rowErrors!(kind, a, factors[0], toKind, b, factors[1], rows, columns, sumsAt);
        sums.set(new Float64Array(memory.buffer, sumsAt, 2 * rows), 2 * row);
      }
      return sums.map((sum) => sum * unit * unit);
    },

    cast(from, to, scale, sourceScale, at, toAt, count) {
      const s = scaleFactor(to, scale);
      const sourceS = scaleFactor(from, sourceScale);
      const gather = (key: string, make: () => Uint8Array) => {
        load(key, make);
        wasm[`gather${8 * widthOf(from)}to${8 * widthOf(to)}`]!(scratchAt, at, toAt, count);
      };
      if (from === to && s === sourceS) {
        new Uint8Array(memory.buffer).copyWithin(toAt, at, at + count * widthOf(from));
      } else if (isFp8(from)) {
        gather(`${from} ${sourceS} ${to} ${s}`, () => fp8To(from, to, sourceS, s));
      } else if (from === "F32") {
        if (to === "F8_E4M3") wasm.f32ToE4M3!(s, at, toAt, count);
        else if (to === "F8_E5M2") wasm.f32ToE5M2!(s, at, toAt, count);
        else if (to === "F16") wasm.f32ToF16!(at, toAt, count);
        else wasm.f32ToBf16!(at, toAt, count);
      } else if (to === "F32") {
        if (from === "BF16") wasm.bf16ToF32!(at, toAt, count);
        else wasm.f16ToF32!(at, toAt, count);
      } else if (isFp8(to)) {
        gather(`${from} ${to} ${s}`, () => halfToFp8(from, to, s));
      } else {
        gather(from, () => halfToHalf(from));
      }
      return { overflowAt: firstOverflow(from, at, to, toAt, count) };
    },
  };
}

/** The value of magnitude bits. */
export function magnitudeOf(dtype: FloatDType, bits: number): number {
  return dtype === "F32" ? f32OfBits(bits) : tableOf(dtype)[bits]!;
}

/** The power of two at or below a magnitude, if both it and its reciprocal are normal numbers; else the nearest such power. */
function unitOf(magnitude: number): number {
  return 2 ** Math.max(-126, Math.min(126, (bitsOfF32(magnitude) >>> 23) - 127));
}

/** FP8 saturates and wider types hold every value, but a value of an FP8 source times its scale may exceed any type. */
function mayOverflow(from: FloatDType, to: FloatDType): boolean {
  if (isFp8(to) || from === to) return false;
  return isFp8(from) || to === "F16" || (to === "BF16" && from === "F32");
}

/** The scale for the arithmetic: 1 if there is none. @throws INTERNAL for a scale that the type cannot have */
function scaleFactor(dtype: FloatDType, scale: number | null): number {
  if (scale === null) return 1;
  if (!isFp8(dtype)) throw new IsologitError("INTERNAL", `a scale was given for ${dtype}`);
  if (!(scale > 0 && scale < Infinity && Math.fround(scale) === scale)) {
    throw new IsologitError("INTERNAL", `scale ${scale} is not a positive finite F32`);
  }
  return scale;
}
