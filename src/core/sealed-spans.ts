/**
 * Compares bytes with the digests that a checkpoint stores of them. The format lists the spans that have a digest; code
 * that reads a whole span compares it. This file does not depend on any format.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Checkpoint, SealedSpan, Span, Tensor } from "./checkpoint.ts";
import { bitsOf, countOf, stridesOf } from "./dtype.ts";
import { IsologitError } from "./errors.ts";
import type { ByteSource, Store } from "./io.ts";

/** The digests of exactly this span; undefined if the checkpoint has none. */
export type FindSeal = (span: Span) => SealedSpan | undefined;

export function sealFinder({ seals = [] }: Pick<Checkpoint, "seals">): FindSeal {
  const byPlace = new Map(seals.map((seal) => [placeOf(seal), seal]));
  return (span) => byPlace.get(placeOf(span));
}

const placeOf = ({ file, offset, size }: Span) => `${offset} ${size} ${file}`;

/** The span of a tensor whose elements are one run of bytes in C order; undefined for other tensors. */
export function spanOf({ pieces: [piece, ...more], dtype, shape }: Tensor): Span | undefined {
  if (piece === undefined || more.length > 0) return undefined;
  const cOrder = stridesOf(piece.shape);
  if (piece.strides?.some((stride, axis) => piece.shape[axis] !== 1 && stride !== cOrder[axis]) === true)
    return undefined;
  return { file: piece.file, offset: piece.offset, size: (countOf(shape) * bitsOf(dtype)) / 8 };
}

/** Reads `size` bytes from byte `offset` of the file of a span. The result is valid until the next call. */
type ReadBytes = (offset: number, size: number) => Promise<Uint8Array>;

/**
 * Reads a span and yields an error for each chunk whose CRC-32 differs. If none differs, it yields an error if the SHA-256
 * differs.
 *
 * @param maxBytes bytes of one read
 */
export async function* damageOfSpan(
  seal: SealedSpan,
  read: ReadBytes,
  maxBytes: number,
): AsyncGenerator<IsologitError> {
  const { what, size, offset } = seal;
  const { chunkBytes, sums } = seal.crc32 ?? { chunkBytes: size, sums: [] };
  const whole = seal.sha256 === undefined ? null : createHash("sha256");
  let located = false;
  for (let from = 0, chunk = 0; from < size; chunk++) {
    const start = from;
    const end = Math.min(size, from + chunkBytes);
    let sum = 0;
    while (from < end) {
      const bytes = await read(offset + from, Math.min(maxBytes, end - from));
      whole?.update(bytes);
      if (seal.crc32 !== undefined) sum = crc32(bytes, sum);
      from += bytes.byteLength;
    }
    if (seal.crc32 === undefined || sum === sums[chunk]) continue;
    located = true;
    const part = sums.length === 1 ? what : `chunk ${chunk + 1} of ${sums.length} of ${what}`;
    const message = `${part} is not what was written: the CRC-32 of its ${end - start} bytes differs`;
    yield digestMismatchError(seal, message, offset + start);
  }
  if (whole === null || located || whole.digest("hex") === seal.sha256) return;
  yield digestMismatchError(seal, `${what} is not what was written: its SHA-256 differs`, offset);
}

/** @param offset in the file, of the first byte that may be damaged */
export function digestMismatchError(
  { file, tensor }: SealedSpan,
  message: string,
  offset: number,
): IsologitError {
  return new IsologitError("DIGEST_MISMATCH", message, {
    ...{ file, offset },
    ...(tensor !== undefined && { tensor }),
  });
}

/** Tensors up to this size, such as scales, are compared when they are read; worker threads compare larger ones. */
const SMALL_BYTES = 1024 * 1024;

/**
 * The same store, which also compares digests: a read of exactly one side file, header or small tensor that has a digest
 * returns the written bytes or throws DIGEST_MISMATCH.
 */
export function checkingStore(store: Store, seals: readonly SealedSpan[] | undefined): Store {
  if (seals === undefined || seals.length === 0) return store;
  const readAlone = seals.filter(({ tensor, size }) => tensor === undefined || size <= SMALL_BYTES);
  const find = sealFinder({ seals: readAlone });
  return { ...store, open: async (path) => sealedSource(await store.open(path), path, find) };
}

function sealedSource(source: ByteSource, file: string, find: FindSeal): ByteSource {
  return {
    url: source.url,
    size: source.size,
    async readInto(target, offset, signal) {
      await source.readInto(target, offset, signal);
      const seal = find({ file, offset, size: target.byteLength });
      if (seal === undefined) return;
      const read: ReadBytes = async (at, size) => target.subarray(at - offset, at - offset + size);
      for await (const fault of damageOfSpan(seal, read, seal.size)) throw fault;
    },
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}
