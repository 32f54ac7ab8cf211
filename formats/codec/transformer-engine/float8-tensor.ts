/**
 * FP8 weights as Transformer Engine pickles them in files of ranks: codes in a byte tensor and one scale, `scale_inv`. Other
 * checkpoints hold no such weights, because Megatron decodes them before it saves. They are decoded here too, to F32: code *
 * scale, rounded once.
 */
import type { Piece, Tensor } from "../../../src/core/checkpoint.ts";
import { bytesOf } from "../../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";
import { tableOf } from "../../../src/core/float.ts";
import type { ByteSource, Store } from "../../../src/core/io.ts";
import { extentsOf, Sources } from "../../../src/core/read.ts";
import { expectKind, isKind, type PickleTensor, type PickleValue } from "../pickle/value.ts";
import { pieceOf, type TorchArchive } from "../torch-zip/read.ts";

/** A weight of codes. */
export interface Float8Weight {
  /** as bytes */
  readonly codes: Tensor;
  readonly scale: Piece;
}

/** Begins the names of decoded files; no path of a store begins with it. */
const PREFIX = "/float8:";

/** E4M3 in versions before and after two integer types were put before it. Weights are never E5M2. */
const E4M3_NUMBERS = [6, 7];

/**
 * The weight that a pickled value is; undefined for other values.
 *
 * @throws UNSUPPORTED for tensors of the engine with several scales, and for other codes
 */
export function float8WeightOf(
  archive: TorchArchive,
  name: string,
  value: PickleValue,
  at: ErrorLocation,
): Float8Weight | undefined {
  if (!isKind(value, "record") || !value.name.startsWith("transformer_engine.")) return undefined;
  const kind = /\.(\w+)\._make_in_reduce_ex$/.exec(value.name)?.[1];
  if (kind !== "Float8Tensor") throw unsupported(`it is a ${kind ?? value.name} of Transformer Engine`, at);
  const [codes, type, inverse] = value.args;
  const number = isKind(type, "record") ? (type.state ?? type.args[0]) : undefined;
  if (!E4M3_NUMBERS.includes(number as number))
    throw unsupported(`its codes have type ${String(number)}`, at);
  const stored = bytesIn(codes, "U8", at);
  const scale = bytesIn(inverse, "F32", at);
  if (scale.shape.some((n) => n !== 1)) throw unsupported(`it has [${scale.shape.join(", ")}] scales`, at);
  const { shape } = stored;
  return {
    codes: { name, dtype: "U8", shape, pieces: [pieceOf(archive, stored)] },
    scale: pieceOf(archive, scale),
  };
}

function bytesIn(value: PickleValue | undefined, dtype: "U8" | "F32", at: ErrorLocation): PickleTensor {
  const tensor = expectKind(value, "tensor", "a part of an FP8 weight", at);
  if (tensor.dtype === dtype) return tensor;
  throw new IsologitError("PICKLE_INVALID", `a part of an FP8 weight is ${tensor.dtype}, not ${dtype}`, at);
}

function unsupported(found: string, at: ErrorLocation): IsologitError {
  const message = `${found}; of its FP8 weights those with E4M3 codes and one scale are read`;
  const next = "load it with Transformer Engine, and save the weights after `dequantize()`";
  return new IsologitError("UNSUPPORTED", message, at, { next });
}

/** The values of a weight, as an F32 tensor of `float8Store`. */
export function decodedWeight(file: string, { codes: { name, shape } }: Float8Weight): Tensor {
  const start = shape.map(() => 0);
  return { name, dtype: "F32", shape, pieces: [{ file: fileOf(file, name), offset: 0, start, shape }] };
}

const fileOf = (file: string, name: string) => `${PREFIX}${file}:${name}`;

/** The store with a file for the values of each weight. @param weights by file and name */
export function float8Store(
  store: Store,
  weights: readonly { readonly file: string; readonly weight: Float8Weight }[],
): Store {
  if (weights.length === 0) return store;
  const byPath = new Map(weights.map(({ file, weight }) => [fileOf(file, weight.codes.name), weight]));
  const open = async (path: string) => {
    const weight = byPath.get(path);
    return weight === undefined ? await store.open(path) : new DecodedSource(store, weight);
  };
  return { ...store, open };
}

class DecodedSource implements ByteSource {
  readonly url: string;
  readonly size: number;
  readonly #sources: Sources;
  readonly #weight: Float8Weight;

  constructor(store: Store, weight: Float8Weight) {
    this.url = store.url;
    this.size = bytesOf("F32", weight.codes.shape);
    this.#sources = new Sources(store);
    this.#weight = weight;
  }

  /** @throws SCALE_INVALID; NON_FINITE with the index of a code that is NaN */
  async readInto(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    const { codes, scale } = this.#weight;
    const at = { tensor: codes.name };
    const [first, end] = [offset / 4, (offset + target.byteLength) / 4];
    if (!Number.isInteger(first) || !Number.isInteger(end))
      throw new IsologitError("INTERNAL", `bytes from ${offset} are not whole elements`, at);
    const stored = await this.#sources.bytes(scale.file, scale.offset, 4);
    const factor = new DataView(stored.buffer).getFloat32(0, true);
    if (!(factor > 0 && factor < Infinity))
      throw new IsologitError("SCALE_INVALID", `its scale_inv is ${factor}`, at);
    const bytes = new Uint8Array(end - first);
    await this.#sources.read(extentsOf(codes, first, end), bytes, signal);
    const values = Float32Array.from(bytes, (code) => tableOf("F8_E4M3")[code]! * factor);
    const bad = bytes.findIndex((code) => (code & 0x7f) === 0x7f);
    if (bad >= 0) throw new IsologitError("NON_FINITE", `a code is NaN`, { ...at, index: first + bad });
    target.set(new Uint8Array(values.buffer));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sources[Symbol.asyncDispose]();
  }
}
