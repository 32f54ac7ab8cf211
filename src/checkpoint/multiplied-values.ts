/** Tensors that store the products of values with multipliers of the model: their values, and the way back to them. */
import type { Tensor } from "../core/checkpoint.ts";
import { bytesOf, type FloatDType, isFloat, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { encode, roundToBf16, widen } from "../core/float.ts";
import type { ByteSource, Store } from "../core/io.ts";
import { extentsOf, Sources } from "../core/read.ts";
import type { ElementFactor, MatchedModel, TransformedTensor } from "../families/model.ts";

/** Elements that are computed at a time. */
const PART_ELEMENTS = 1 << 20;

/** A tensor of products, whose elements are read when their values are. */
type Products = Extract<TransformedTensor, { times: unknown }>;

/**
 * Types whose values a product in F32 gives back: it is rounded to 2^-24 of itself, and they have at most 11 bits. A value of
 * F32 comes back only if the number is a power of two.
 */
export const returns = (dtype: FloatDType, times: readonly ElementFactor[]): boolean =>
  dtype === "BF16" ||
  dtype === "F16" ||
  (dtype === "F32" && times.every(({ factor }) => isPowerOfTwo(factor)));

const isPowerOfTwo = (factor: number): boolean => Number.isInteger(Math.log2(Math.abs(factor)));

/** The type of a tensor's products. @throws UNSUPPORTED for blocks, from which the values do not follow */
function floatType({ name, dtype }: Tensor): FloatDType {
  if (isFloat(dtype)) return dtype;
  const message = `it is ${dtype}, and holds weights multiplied by the multipliers of the model`;
  const next = "give the file of floats that it was made from, or the Hugging Face folder";
  throw new IsologitError("UNSUPPORTED", message, { tensor: name }, { next });
}

/** Multiplies `values`, elements from `first` on, each in one rounding. */
export function multiply(values: Float32Array, first: number, times: readonly ElementFactor[]): void {
  eachRun(values, first, times, (value, factor) => value * factor);
}

function eachRun(
  values: Float32Array,
  first: number,
  times: readonly ElementFactor[],
  of: (value: number, factor: number) => number,
): void {
  for (const { lo, hi, factor } of times) {
    const [from, to] = [Math.max(lo - first, 0), Math.min(hi - first, values.length)];
    for (let i = from; i < to; i++) values[i] = of(values[i]!, factor);
  }
}

/** Rounds F32 values to numbers of the type that they had before they were multiplied. */
function roundTo(values: Float32Array, noted: "BF16" | "F16" | undefined): Float32Array {
  if (noted === undefined) return values;
  if (noted === "BF16") return roundToBf16(values);
  return widen("F16", new Uint8Array(Uint16Array.from(values, (value) => encode("F16", value)).buffer));
}

/** @throws UNSUPPORTED for a tensor of a model that holds products in blocks */
export function refuseBlocks({ transformed }: MatchedModel): void {
  for (const form of transformed.values()) if ("times" in form) floatType(form.tensor);
}

/** A file with the values of a tensor of products, as F32. The memory is that of the read range. */
export class Quotients implements ByteSource {
  readonly url: string;
  readonly size: number;
  readonly #sources: Sources;
  readonly #tensor: Tensor;
  readonly #dtype: FloatDType;
  readonly #times: readonly ElementFactor[];
  readonly #noted: "BF16" | "F16" | undefined;

  /**
   * @param noted the type of the values before they were multiplied; undefined: they are not rounded
   * @throws UNSUPPORTED as `refuseBlocks`
   */
  constructor(store: Store, { tensor, times }: Products, noted: "BF16" | "F16" | undefined) {
    this.url = store.url;
    this.size = bytesOf("F32", tensor.shape);
    this.#sources = new Sources(store);
    this.#tensor = tensor;
    this.#dtype = floatType(tensor);
    this.#times = times;
    this.#noted = noted;
  }

  async readInto(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    const [first, end] = [offset / 4, (offset + target.byteLength) / 4];
    for (let lo = first; lo < end; lo += PART_ELEMENTS) {
      const hi = Math.min(end, lo + PART_ELEMENTS);
      const bytes = new Uint8Array((hi - lo) * widthOf(this.#dtype));
      await this.#sources.read(extentsOf(this.#tensor, lo, hi), bytes, signal);
      const values = widen(this.#dtype, bytes);
      eachRun(values, lo, this.#times, (product, factor) => product / factor);
      const rounded = roundTo(values, this.#noted);
      target.set(new Uint8Array(rounded.buffer, rounded.byteOffset, rounded.byteLength), (lo - first) * 4);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sources[Symbol.asyncDispose]();
  }
}
