/**
 * Bytes held to the digests that a checkpoint's format keeps of them. A format says which spans it has sealed; what
 * reads a span through compares. Nothing here knows a format.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Checkpoint, SealedSpan, Span, Tensor } from "./checkpoint.ts";
import { bitsOf, countOf, stridesOf } from "./dtype.ts";
import { IsologitError } from "./errors.ts";
import type { ByteSource, Store } from "./io.ts";

/** The seal of exactly this span; undefined where there is none. */
export type FindSeal = (span: Span) => SealedSpan | undefined;

export function sealFinder({ seals = [] }: Pick<Checkpoint, "seals">): FindSeal {
  const byPlace = new Map(seals.map((seal) => [placeOf(seal), seal]));
  return (span) => byPlace.get(placeOf(span));
}

const placeOf = ({ file, offset, size }: Span) => `${offset} ${size} ${file}`;

/** Where a tensor lies whose elements are one run of bytes in C order; undefined for any other. */
export function spanOf({ pieces: [piece, ...more], dtype, shape }: Tensor): Span | undefined {
  if (piece === undefined || more.length > 0) return undefined;
  const cOrder = stridesOf(piece.shape);
  if (piece.strides?.some((stride, axis) => piece.shape[axis] !== 1 && stride !== cOrder[axis]) === true)
    return undefined;
  return { file: piece.file, offset: piece.offset, size: (countOf(shape) * bitsOf(dtype)) / 8 };
}

/** `size` bytes from byte `offset` of the file that a span lies in; good until the next call. */
type ReadBytes = (offset: number, size: number) => Promise<Uint8Array>;

/**
 * Every fault of a span that reading it finds: each chunk whose checksum differs; where no chunk is at fault, a
 * SHA-256 that differs.
 *
 * @param maxBytes read at a time
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

/** @param offset in the file, of the first byte in doubt */
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

/** Tensors up to this size, scales among them, are compared where they are read in one go; larger ones by lanes. */
const SMALL_BYTES = 1024 * 1024;

/**
 * The same store; whoever reads a sealed side file or header from it, or a small tensor, and no byte beside it, gets
 * what was written or DIGEST_MISMATCH.
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
