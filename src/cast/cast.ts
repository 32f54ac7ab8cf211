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
export const SCRATCH_BYTES = 65536 * 2;

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

/** Least magnitude bits of a NaN. */
const FIRST_NAN = { F32: 0x7f800001, BF16: 0x7f81, F16: 0x7c01, F8_E4M3: 0x7f, F8_E5M2: 0x7d } as const;

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
      if (bits < NON_FINITE[dtype]) return dtype === "F32" ? f32OfBits(bits) : tableOf(dtype)[bits]!;
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
