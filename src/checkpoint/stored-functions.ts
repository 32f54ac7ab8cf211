/**
 * Tensors that store a function of each value of their role: -exp(v) for the numbers A of Mamba's heads, of which checkpoints of
 * training store A_log, and v + 1 for gains of which they store the gain less 1, both small, and products with multipliers.
 * They become F32 tensors of the values, computed when they are read.
 */
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { bytesOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { roundToBf16, widen } from "../core/float.ts";
import type { ByteSource, Store } from "../core/io.ts";
import { extentsOf, Sources } from "../core/read.ts";
import type { Rule } from "../families/dialect.ts";
import type { MatchedModel, TransformedTensor } from "../families/model.ts";
import { Quotients } from "./multiplied-values.ts";

/** Begins the keys that hold the values of a tensor where they do not follow from what it stores. */
export const VALUES_KEY = "isologit.values.";

/** Begins the names of the computed files; no path of a store begins with it. */
const PREFIX = "/values:";

/** A function of the values of a role. */
export interface StoredFunction {
  /** in F32, rounded once */
  of(value: number): number;
  /**
   * The value of which `number` is the function. Nearly all published values are BF16: a BF16 value is taken if it has the same
   * function, or for -exp the same to one unit in the last place, because the exponential of torch is not rounded correctly.
   */
  valueOf(number: number): number;
  isPossible(number: number): boolean;
  /** what the function is, and what a possible number is */
  readonly text: string;
  readonly rule: string;
}

const negativeExponential = (value: number): number => Math.fround(-Math.exp(value));
const plusOne = (value: number): number => Math.fround(value + 1);

const FUNCTIONS: Readonly<Record<NonNullable<Rule["stores"]>, StoredFunction>> = {
  "-exp": {
    of: negativeExponential,
    valueOf: (number) => nearestValue(number, Math.log(-number), negativeExponential, unitOf(number)),
    isPossible: (number) => number < 0 && Number.isFinite(number),
    ...{ text: "-exp of its value", rule: "a finite number below 0" },
  },
  "+1": {
    of: plusOne,
    valueOf: (number) => nearestValue(number, number - 1, plusOne, 0),
    isPossible: Number.isFinite,
    ...{ text: "its value + 1", rule: "a finite number" },
  },
};

export const storedFunction = (name: NonNullable<Rule["stores"]>): StoredFunction => FUNCTIONS[name];

/** @param exact the value before it is rounded; a BF16 value is taken whose function is `number` within `tolerance` */
function nearestValue(
  number: number,
  exact: number,
  of: (value: number) => number,
  tolerance: number,
): number {
  const nearest = Math.fround(exact);
  const [short] = roundToBf16(Float32Array.of(nearest)) as unknown as [number]; // one number in, one out
  return Math.abs(of(short) - number) <= tolerance ? short : nearest;
}

/** One unit in the last place of an F32. */
const unitOf = (number: number): number => 2 ** Math.max(Math.floor(Math.log2(Math.abs(number))) - 23, -149);

/**
 * The model with the values of its roles in place of functions of them. Only names change here.
 *
 * @throws NON_FINITE in reads, for a number that the function cannot have
 */
export function withStoredValues<M extends MatchedModel>(model: M): M {
  // a planned tensor is not written yet
  const stored = new Map([...model.transformed].filter(([, { tensor }]) => tensor.pieces.length > 0));
  if (stored.size === 0) return model;
  const tensors = new Map(
    [...model.tensors].map(([key, tensor]) => [key, stored.has(key) ? valuesTensor(tensor) : tensor]),
  );
  const { store, config, widened } = model.checkpoint;
  const open = async (path: string): Promise<ByteSource> => {
    const found = path.startsWith(PREFIX) ? stored.get(path.slice(PREFIX.length)) : undefined;
    if (found === undefined) return await store.open(path);
    if ("times" in found) return new Quotients(store, found, widened?.get(tensorKey(found.tensor)));
    return await valuesOf(found, store, config[VALUES_KEY + found.tensor.name]);
  };
  return { ...model, tensors, checkpoint: { ...model.checkpoint, store: { ...store, open } } };
}

/**
 * The tensors that a run reads, by `tensorKey`: as stored, because the table of a dialect's rows says how values follow, apart
 * from this file. Of -exp(v) a run reads v, as its kernels do.
 */
export function runTensors({ tensors, transformed }: MatchedModel): ReadonlyMap<string, Tensor> {
  const isRead = (form: TransformedTensor) => "times" in form || form.stores !== "-exp";
  const stored = [...transformed].filter(([, form]) => isRead(form));
  return new Map([...tensors, ...stored.map(([key, { tensor }]) => [key, tensor] as const)]);
}

function valuesTensor(tensor: Tensor): Tensor {
  const start = tensor.shape.map(() => 0);
  const piece = { file: PREFIX + tensorKey(tensor), offset: 0, start, shape: tensor.shape };
  return { ...tensor, dtype: "F32", pieces: [piece] };
}

/** All values of a tensor. @param known values that the file has beside the tensor */
async function valuesOf(
  { tensor, stores }: Extract<TransformedTensor, { stores: unknown }>,
  store: Store,
  known: unknown,
): Promise<ByteSource> {
  await using sources = new Sources(store);
  const bytes = new Uint8Array(bytesOf("F32", tensor.shape));
  await sources.read(extentsOf(tensor, 0, bytes.byteLength / 4), bytes);
  const numbers = widen("F32", bytes);
  const listed: readonly unknown[] = Array.isArray(known) && known.length === numbers.length ? known : [];
  const computed = storedFunction(stores);
  const values = numbers.map((number, index) => {
    if (!computed.isPossible(number)) {
      const at = { file: tensor.pieces[0]!.file, tensor: tensor.name, index };
      throw new IsologitError("NON_FINITE", `it is ${number}; expected ${computed.rule}`, at);
    }
    const value = listed[index];
    return typeof value === "number" && computed.of(value) === number ? value : computed.valueOf(number);
  });
  const written = new Uint8Array(values.buffer);
  return {
    url: store.url,
    size: written.byteLength,
    readInto: async (target, offset) => target.set(written.subarray(offset, offset + target.byteLength)),
    [Symbol.asyncDispose]: async () => {},
  };
}
