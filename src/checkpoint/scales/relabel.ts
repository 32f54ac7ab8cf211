/**
 * FP8 of AMD's MI300 as the OCP type of the same fields: the codes stay, and the scales are halved, because the same bits
 * mean twice the value. Nothing is rounded. Codes without such a twin are refused when they are read.
 */
import { type Checkpoint, type SealedSpan, type Tensor, tensorKey } from "../../core/checkpoint.ts";
import { bytesOf, type Fnuz, isFloat, isFnuz, OCP_TYPES, widthOf } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import { encode, tableOf, widen } from "../../core/float.ts";
import type { ByteSource, Store } from "../../core/io.ts";
import { extentsOf, Sources } from "../../core/read.ts";
import { spanOf } from "../../core/sealed-spans.ts";
import { pairScales } from "./pair.ts";
import { areExponents, scalesOf } from "./values.ts";

/** Begins the names of relabelled files; no path of a store begins with it. */
const PREFIX = "/relabelled:";

/**
 * The checkpoint with OCP types in place of FNUZ types. Scales of activations and caches stay: they are factors for any
 * FP8 type, and the OCP type reaches further.
 *
 * @returns the same checkpoint if it has no FNUZ weight; else reads throw OVERFLOW or NON_FINITE for a code without a twin,
 *   and SCALE_INVALID for a scale whose half its type cannot hold
 */
export function relabelFnuz(checkpoint: Checkpoint): Checkpoint {
  const { scaleOf } = pairScales(checkpoint.tensors, checkpoint.config);
  const weights = checkpoint.tensors.filter(({ dtype }) => isFnuz(dtype));
  if (weights.length === 0) return checkpoint;
  const names = new Set(weights.map(({ name }) => scaleOf.get(name)!.tensor)); // FNUZ weights have scales
  const stored = new Map(
    [...weights, ...checkpoint.tensors.filter(({ name }) => names.has(name))].map((tensor) => [
      PREFIX + tensorKey(tensor),
      tensor,
    ]),
  );
  const { store, seals = [] } = checkpoint;
  const open = async (path: string) => {
    const tensor = stored.get(path);
    return tensor === undefined ? await store.open(path) : new RelabelledSource(store, tensor);
  };
  return {
    ...checkpoint,
    tensors: checkpoint.tensors.map((tensor) =>
      stored.has(PREFIX + tensorKey(tensor)) ? relabelled(tensor) : tensor,
    ),
    ...(checkpoint.seals !== undefined && { seals: [...seals, ...sealsOfCodes(weights, seals)] }),
    store: { ...store, open },
  };
}

function relabelled({ rank, name, dtype, shape }: Tensor): Tensor {
  const start = shape.map(() => 0);
  const placed = { name, ...(rank !== undefined && { rank }) };
  const file = PREFIX + tensorKey(placed);
  const pieces = [{ file, offset: 0, start, shape }];
  return { ...placed, dtype: isFnuz(dtype) ? OCP_TYPES[dtype] : dtype, shape, pieces };
}

/** The seals of codes also hold for the relabelled files, because their bytes are equal. */
function sealsOfCodes(weights: readonly Tensor[], seals: readonly SealedSpan[]): readonly SealedSpan[] {
  const byTensor = new Map(seals.flatMap((seal) => (seal.tensor === undefined ? [] : [[seal.tensor, seal]])));
  return weights.flatMap((weight) => {
    const [seal, key] = [byTensor.get(tensorKey(weight)), tensorKey(weight)];
    return seal === undefined || spanOf(weight) === undefined
      ? []
      : [{ ...seal, file: PREFIX + key, offset: 0 }];
  });
}

/** Reads checked codes, or halved scales. */
class RelabelledSource implements ByteSource {
  readonly url: string;
  readonly size: number;
  readonly #sources: Sources;
  readonly #tensor: Tensor;

  constructor(store: Store, tensor: Tensor) {
    this.url = store.url;
    this.size = bytesOf(tensor.dtype, tensor.shape);
    this.#sources = new Sources(store);
    this.#tensor = tensor;
  }

  async readInto(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    const width = widthOf(this.#tensor.dtype);
    const [first, end] = [offset / width, (offset + target.byteLength) / width];
    if (!Number.isInteger(first) || !Number.isInteger(end))
      throw new IsologitError("INTERNAL", `bytes from ${offset} are not whole elements`);
    await this.#sources.read(extentsOf(this.#tensor, first, end), target, signal);
    const { name, dtype } = this.#tensor;
    if (isFnuz(dtype)) refuseCodes(name, dtype, target, first);
    else target.set(halvedScales(this.#tensor, target, first));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sources[Symbol.asyncDispose]();
  }
}

/**
 * @param first index of the first of these codes in the tensor
 * @throws NON_FINITE: 0x80, which is NaN in a FNUZ type; OVERFLOW: a number whose bits are infinity or NaN in the OCP type
 */
function refuseCodes(tensor: string, dtype: Fnuz, codes: Uint8Array, first: number): void {
  const values = tableOf(OCP_TYPES[dtype]);
  let at = 0;
  while (at < codes.length && codes[at] !== 0x80 && Number.isFinite(values[codes[at]!]!)) at++;
  if (at === codes.length) return;
  const code = codes[at]!;
  const [hex, index] = [`0x${code.toString(16)}`, first + at];
  if (code === 0x80)
    throw new IsologitError("NON_FINITE", `the code ${hex} of ${dtype} at index ${index} is NaN`, {
      tensor,
      index,
    });
  const value = tableOf(dtype)[code]!;
  const message = `the code ${hex} at index ${index} is ${value} in ${dtype} and ${values[code]} in ${OCP_TYPES[dtype]}: it cannot be relabelled`;
  const next =
    "leave `fnuz` out and decode the weights with `dtype` bf16, or cast them anew with `dtype` fp8-e4m3";
  throw new IsologitError("OVERFLOW", message, { tensor, index }, { next });
}

/**
 * Scales / 2 in their own type.
 *
 * @param first index of the first of these scales in the tensor
 * @throws SCALE_INVALID if the half of a scale is not a number of that type
 */
function halvedScales(tensor: Tensor, bytes: Uint8Array, first: number): Uint8Array {
  const { name, dtype } = tensor;
  const scales = scalesOf(tensor, bytes, first);
  const halves = scales.map((scale) => scale / 2);
  const written = areExponents(tensor)
    ? bytes.map((exponent) => exponent - 1)
    : dtype === "F32"
      ? new Uint8Array(halves.buffer)
      : new Uint8Array(Uint16Array.from(halves, (half) => encode(dtype as "BF16" | "F16", half)).buffer);
  const read = isFloat(dtype) ? widen(dtype, written) : scalesOf(tensor, written, first);
  const at = scales.findIndex((scale, i) => read[i]! * 2 !== scale);
  if (at < 0) return written;
  const message = `half of the scale ${scales[at]} is not a number of its type ${dtype}`;
  throw new IsologitError("SCALE_INVALID", message, { tensor: name, index: first + at });
}
