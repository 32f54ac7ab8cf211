/**
 * Tensors that store -exp(v) for each value v of their role: the numbers A of Mamba's heads, of which checkpoints of training
 * store A_log. They become F32 tensors of the values, computed when they are read.
 */
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { bytesOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { roundToBf16, widen } from "../core/float.ts";
import type { ByteSource, Store } from "../core/io.ts";
import { extentsOf, Sources } from "../core/read.ts";
import type { MatchedModel } from "../families/model.ts";

/** Begins the keys that hold the values of a tensor where they do not follow from their negative exponentials. */
export const VALUES_KEY = "isologit.values.";

/** Begins the names of the computed files; no path of a store begins with it. */
const PREFIX = "/logarithms:";

/**
 * The model with the values of its roles in place of their negative exponentials. Only names change here.
 *
 * @throws NON_FINITE in reads, for a number that is no negative exponential: it must be below 0
 */
export function withLogarithms<M extends MatchedModel>(model: M): M {
  // a planned tensor is not written yet
  const stored = new Map([...model.transformed].filter(([, { pieces }]) => pieces.length > 0));
  if (stored.size === 0) return model;
  const tensors = new Map(
    [...model.tensors].map(([key, tensor]) => [key, stored.has(key) ? logarithms(tensor) : tensor]),
  );
  const { store, config } = model.checkpoint;
  const open = async (path: string): Promise<ByteSource> => {
    const tensor = path.startsWith(PREFIX) ? stored.get(path.slice(PREFIX.length)) : undefined;
    if (tensor === undefined) return await store.open(path);
    return await logarithmsOf(tensor, store, config[VALUES_KEY + tensor.name]);
  };
  return { ...model, tensors, checkpoint: { ...model.checkpoint, store: { ...store, open } } };
}

function logarithms(tensor: Tensor): Tensor {
  const start = tensor.shape.map(() => 0);
  const piece = { file: PREFIX + tensorKey(tensor), offset: 0, start, shape: tensor.shape };
  return { ...tensor, dtype: "F32", pieces: [piece] };
}

/** All values of a tensor: there is one for each head. @param known values that the file has beside the tensor */
async function logarithmsOf(tensor: Tensor, store: Store, known: unknown): Promise<ByteSource> {
  await using sources = new Sources(store);
  const bytes = new Uint8Array(bytesOf("F32", tensor.shape));
  await sources.read(extentsOf(tensor, 0, bytes.byteLength / 4), bytes);
  const numbers = widen("F32", bytes);
  const listed: readonly unknown[] = Array.isArray(known) && known.length === numbers.length ? known : [];
  const values = numbers.map((number, index) => {
    if (!(number < 0 && Number.isFinite(number))) {
      const at = { file: tensor.pieces[0]!.file, tensor: tensor.name, index };
      throw new IsologitError(
        "NON_FINITE",
        `it is ${number}; the number of a head is finite and below 0`,
        at,
      );
    }
    const value = listed[index];
    return typeof value === "number" && negativeExponential(value) === number
      ? value
      : valueOfExponential(number);
  });
  const written = new Uint8Array(values.buffer);
  return {
    url: store.url,
    size: written.byteLength,
    readInto: async (target, offset) => target.set(written.subarray(offset, offset + target.byteLength)),
    [Symbol.asyncDispose]: async () => {},
  };
}

/** -exp(value) in F32, rounded once. */
export const negativeExponential = (value: number): number => Math.fround(-Math.exp(value));

/**
 * The value whose negative exponential is `number`. Nearly all published values are BF16: a BF16 value is taken if its
 * negative exponential is `number` to one unit in the last place, because the exponential of torch is not rounded correctly.
 */
export function valueOfExponential(number: number): number {
  const nearest = Math.fround(Math.log(-number));
  const [short] = roundToBf16(Float32Array.of(nearest)) as unknown as [number]; // one number in, one out
  return Math.abs(negativeExponential(short) - number) <= unitOf(number) ? short : nearest;
}

/** One unit in the last place of an F32. */
const unitOf = (number: number): number => 2 ** Math.max(Math.floor(Math.log2(Math.abs(number))) - 23, -149);
