/**
 * Weights of codes as F32 tensors: a store whose further files hold the decoded values, computed when they are read. The
 * memory is that of the read range. Every value is code * scale, a product in F32; blocks of ggml have their own scales.
 */

import { halvesOf } from "../../core/blocks/values.ts";
import { type Checkpoint, type Tensor, tensorKey } from "../../core/checkpoint.ts";
import {
  blockElements,
  bytesOf,
  type DecodedBlock,
  type DType,
  type Fnuz,
  isDecodedBlock,
  isFnuz,
  isFp8,
  type Shape,
  widthOf,
} from "../../core/dtype.ts";
import { IsologitError, withLocation } from "../../core/errors.ts";
import { tableOf, widen } from "../../core/float.ts";
import type { ByteSource, Store } from "../../core/io.ts";
import { extentsOf, Sources } from "../../core/read.ts";
import { sealFinder, spanOf } from "../../core/sealed-spans.ts";
import { refuseDamagedSpan } from "../tensor-digests.ts";
import type { WeightScale } from "./pair.ts";
import { readScale, scalesOf } from "./values.ts";

/** A weight of codes, and its scales. */
export interface EncodedWeight {
  readonly codes: Tensor;
  /** null: a quantised type of ggml, whose blocks hold their scales */
  readonly scale: WeightScale | null;
  /** stored tensors of the scales, by name */
  readonly tensors: ReadonlyMap<string, Tensor>;
}

/** What a decoded file holds for each element of the weight: its value, or the scale that its code is multiplied by. */
export type DecodedPart = "value" | "scale";

/** The values of a weight, or its scales, as an F32 tensor of `decodingStore`. */
export function decodedTensor(codes: Tensor, part: DecodedPart): Tensor {
  const { name, shape, rank } = codes;
  const start = shape.map(() => 0);
  const file = `${PREFIX}${part}:${tensorKey(codes)}`;
  return { name, dtype: "F32", shape, ...(rank && { rank }), pieces: [{ file, offset: 0, start, shape }] };
}

/** Begins the names of decoded files; no path of a store begins with it. */
const PREFIX = "/decoded:";

/**
 * The store of a checkpoint with a file for the values and one for the scales of each weight. Scales are read in parts, so
 * they are compared with the digest of their tensor before their first use. @throws DIGEST_MISMATCH in reads
 *
 * @param weights by `tensorKey`
 */
export function decodingStore(
  checkpoint: Pick<Checkpoint, "store" | "seals">,
  weights: ReadonlyMap<string, EncodedWeight>,
): Store {
  const { store } = checkpoint;
  const find = sealFinder(checkpoint);
  const compared = new Map<string, Promise<void>>();
  const compare: CompareScales = (scales, sources, signal) => {
    const span = spanOf(scales);
    const seal = span === undefined ? undefined : find(span);
    if (seal === undefined) return Promise.resolve();
    const begun = compared.get(scales.name) ?? refuseDamagedSpan(seal, sources, signal);
    compared.set(scales.name, begun);
    return begun;
  };
  return {
    ...store,
    open: async (path) => {
      if (!path.startsWith(PREFIX)) return await store.open(path);
      const [part, key] = split(path.slice(PREFIX.length));
      const weight = weights.get(key);
      if (weight === undefined) throw new IsologitError("INTERNAL", `${key} has no codes`, { file: path });
      return new DecodedSource(store, weight, part, compare);
    },
  };
}

function split(name: string): readonly [DecodedPart, string] {
  const at = name.indexOf(":");
  return [name.slice(0, at) === "scale" ? "scale" : "value", name.slice(at + 1)];
}

/** Compares the stored scales of a weight with their digest, once. */
type CompareScales = (scales: Tensor, sources: Sources, signal: AbortSignal | undefined) => Promise<void>;

/** Values of the codes of E2M1, by code: the highest bit is the sign. */
const E2M1 = Float32Array.of(0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6);

/** Elements that are decoded at a time. */
const PART_ELEMENTS = 1 << 20;

/** Reads F32 values that are decoded from codes and scales. */
class DecodedSource implements ByteSource {
  readonly url: string;
  readonly size: number;
  readonly #sources: Sources;
  readonly #weight: EncodedWeight;
  readonly #part: DecodedPart;
  readonly #compare: CompareScales;
  /** scales of the last rows of blocks that were read: first block, and values */
  #scales: { readonly first: number; readonly values: Float32Array } | undefined;
  #second: number | undefined;

  constructor(store: Store, weight: EncodedWeight, part: DecodedPart, compare: CompareScales) {
    this.url = store.url;
    this.size = bytesOf("F32", weight.codes.shape);
    this.#sources = new Sources(store);
    this.#weight = weight;
    this.#part = part;
    this.#compare = compare;
  }

  async readInto(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    if (offset % 4 !== 0 || target.byteLength % 4 !== 0) {
      throw new IsologitError(
        "INTERNAL",
        `decoded bytes ${offset} to ${offset + target.byteLength} are not whole elements`,
      );
    }
    const first = offset / 4;
    const end = first + target.byteLength / 4;
    for (let lo = first; lo < end; lo += PART_ELEMENTS) {
      const hi = Math.min(end, lo + PART_ELEMENTS);
      const values = await this.#decode(lo, hi, signal);
      target.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), (lo - first) * 4);
    }
  }

  /** Elements [lo, hi). */
  async #decode(lo: number, hi: number, signal: AbortSignal | undefined): Promise<Float32Array> {
    const { codes, scale } = this.#weight;
    if (scale === null) return this.#blocks(lo, hi, signal);
    const values =
      this.#part === "scale" ? new Float32Array(hi - lo).fill(1) : await this.#codes(lo, hi, signal);
    const columns = columnsOf(codes.shape);
    const [height, width] = scale.block;
    const [gridRows, gridColumns] = scale.grid;
    const rows = rowsOf(codes.shape);
    const blockRow = (row: number) =>
      scale.extent === "tensor" ? 0 : Math.floor(row / rows) * gridRows + Math.floor((row % rows) / height);
    const [firstRow, lastRow] = [Math.floor(lo / columns), Math.floor((hi - 1) / columns)];
    const scales = await this.#scaleRows(blockRow(firstRow), blockRow(lastRow) + 1, gridColumns, signal);
    for (let row = firstRow; row <= lastRow; row++) {
      const scaleAt = (blockRow(row) - blockRow(firstRow)) * gridColumns;
      const start = row * columns;
      for (let block = 0; block < gridColumns; block++) {
        const from = Math.max(lo, start + block * width);
        const to = Math.min(hi, start + Math.min(columns, (block + 1) * width));
        const factor = scales[scaleAt + block]!;
        for (let i = from - lo; i < to - lo; i++) values[i] = values[i]! * factor;
      }
    }
    return values;
  }

  /** Values of a quantised type, from the whole blocks that hold them. @throws NON_FINITE for a scale that is no number */
  async #blocks(lo: number, hi: number, signal: AbortSignal | undefined): Promise<Float32Array> {
    const { codes } = this.#weight;
    if (!isDecodedBlock(codes.dtype)) throw new IsologitError("INTERNAL", `${codes.dtype} has no scale`);
    const block = blockElements(codes.dtype);
    const first = Math.floor(lo / block) * block;
    const end = Math.ceil(hi / block) * block;
    const bytes = new Uint8Array((end - first) * widthOf(codes.dtype));
    await this.#sources.read(extentsOf(codes, first, end), bytes, signal);
    const index = brokenBlock(codes.dtype, bytes);
    if (index >= 0) {
      const at = { tensor: codes.name, index: first + index * block };
      throw new IsologitError("NON_FINITE", "the scale of a block is NaN or infinite", at);
    }
    return widen(codes.dtype, bytes).subarray(lo - first, hi - first);
  }

  /** Values of codes, without scales. */
  async #codes(lo: number, hi: number, signal: AbortSignal | undefined): Promise<Float32Array> {
    const { codes } = this.#weight;
    const values = new Float32Array(hi - lo);
    if (codes.dtype === "F4") {
      const [first, end] = [lo - (lo % 2), hi + (hi % 2)];
      const bytes = new Uint8Array((end - first) / 2);
      await this.#sources.read(extentsOf(codes, first, end), bytes, signal);
      for (let i = lo; i < hi; i++) values[i - lo] = E2M1[(bytes[(i - first) >> 1]! >> (4 * (i % 2))) & 15]!;
      return values;
    }
    const table = tableOf(fp8Type(codes.dtype));
    const bytes = new Uint8Array(hi - lo);
    await this.#sources.read(extentsOf(codes, lo, hi), bytes, signal);
    for (let i = 0; i < bytes.length; i++) values[i] = table[bytes[i]!]!;
    return values;
  }

  /** The effective scales of the blocks in rows of blocks [lo, hi): with the second scale, if there is one. */
  async #scaleRows(
    lo: number,
    hi: number,
    columns: number,
    signal: AbortSignal | undefined,
  ): Promise<Float32Array> {
    const [first, count] = [lo * columns, (hi - lo) * columns];
    if (this.#scales?.first === first && this.#scales.values.length === count) return this.#scales.values;
    const { tensors } = this.#weight;
    const scale = this.#weight.scale!; // of codes; blocks have none
    const stored = tensors.get(scale.tensor)!;
    await this.#compare(stored, this.#sources, signal);
    const bytes = new Uint8Array(bytesOf(stored.dtype, [count]));
    await this.#sources.read(extentsOf(stored, first, first + count), bytes, signal);
    const values = scalesOf(stored, bytes, first);
    if (scale.second !== undefined) {
      const { tensor, op } = scale.second;
      this.#second ??= await readScale(tensors.get(tensor)!, this.#sources).catch((error) => {
        throw withLocation(error, { tensor });
      });
      const second = this.#second;
      // an assignment to a Float32Array rounds: the scale of a block is itself an F32 number
      for (let i = 0; i < count; i++)
        values[i] = op === "multiply" ? values[i]! * second : values[i]! / second;
    }
    this.#scales = { first, values };
    return values;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sources[Symbol.asyncDispose]();
  }
}

/** Index of the first block with an F16 number that is not finite, or -1. */
function brokenBlock(dtype: DecodedBlock, bytes: Uint8Array): number {
  const size = blockElements(dtype) * widthOf(dtype);
  const highBytes = halvesOf(dtype).map((at) => at + 1);
  for (let at = 0; at < bytes.length; at += size) {
    for (const high of highBytes) if ((bytes[at + high]! & 0x7c) === 0x7c) return at / size;
  }
  return -1;
}

function rowsOf(shape: Shape): number {
  return shape.length < 2 ? (shape[0] ?? 1) : shape.at(-2)!;
}

function columnsOf(shape: Shape): number {
  return shape.length < 2 ? 1 : shape.at(-1)!;
}

function fp8Type(dtype: DType): "F8_E4M3" | "F8_E5M2" | Fnuz {
  if (isFp8(dtype) || isFnuz(dtype)) return dtype;
  throw new IsologitError("INTERNAL", `${dtype} holds no codes`);
}
