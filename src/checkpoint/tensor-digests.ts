/**
 * Compares digests of a tensor with the digests that the format stores. Other steps have computed the digests already, so
 * that no byte is hashed twice.
 */
import { joinCrc32 } from "../../formats/codec/crc32-join.ts";
import { CHUNK_BYTES } from "../../formats/format.ts";
import type { Checkpoint, SealedSpan, Tensor } from "../core/checkpoint.ts";
import { countOf } from "../core/dtype.ts";
import { type ElementSource, wholeTensorOf } from "../core/gather.ts";
import { sha256 } from "../core/hash.ts";
import { Sources } from "../core/read.ts";
import {
  damageOfSpan,
  digestMismatchError,
  type FindSeal,
  sealFinder,
  spanOf,
} from "../core/sealed-spans.ts";

/** Digests of all bytes of a span; an absent digest was not computed. */
export interface ComputedDigests {
  /** hex */
  readonly sha256?: string;
  /** CRC-32 of each run of CHUNK_BYTES */
  readonly crc32?: readonly number[];
}

/** The seal of elements that are exactly one stored tensor; undefined for other elements. */
export function sealOfElements(
  origin: ElementSource,
  count: number,
  tensors: ReadonlyMap<string, Tensor>,
  find: FindSeal,
): SealedSpan | undefined {
  const tensor = tensors.get(wholeTensorOf(origin, count) ?? "");
  if (tensor === undefined || countOf(tensor.shape) !== count) return undefined;
  const span = spanOf(tensor);
  return span === undefined ? undefined : find(span);
}

/** Bytes that one read of the search for a damaged chunk has. */
const STEP_BYTES = 4 * 1024 * 1024;

/**
 * Compares computed digests with a seal. If they differ, the span is read again to find the damaged chunk.
 *
 * @throws DIGEST_MISMATCH with the file, the tensor, the chunk and its first byte
 */
export async function refuseDamaged(
  seal: SealedSpan | undefined,
  computed: ComputedDigests,
  sources: Sources,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (seal === undefined || agrees(seal, computed)) return;
  await refuseDamagedSpan(seal, sources, signal);
  const message = `${seal.what} was not what was written when it was read, and is when it is read again`;
  throw digestMismatchError(seal, message, seal.offset);
}

/** Reads a span once and compares its digests. @throws DIGEST_MISMATCH with the first damaged chunk */
export async function refuseDamagedSpan(
  seal: SealedSpan,
  sources: Sources,
  signal: AbortSignal | undefined,
): Promise<void> {
  const buffer = new Uint8Array(Math.min(STEP_BYTES, seal.size));
  await sources.use(seal.file, async (source) => {
    const read = async (offset: number, size: number) => {
      const bytes = buffer.subarray(0, size);
      await source.readInto(bytes, offset, signal);
      return bytes;
    };
    for await (const fault of damageOfSpan(seal, read, buffer.byteLength)) throw fault;
  });
}

/**
 * Reads the headers of weight files that have a seal and compares their digests. A comparison of two checkpoints does not
 * read them.
 *
 * @throws DIGEST_MISMATCH
 */
export async function refuseDamagedHeaders(
  checkpoint: Checkpoint,
  signal: AbortSignal | undefined,
): Promise<void> {
  const find = sealFinder(checkpoint);
  await using sources = new Sources(checkpoint.store);
  for (const { header } of checkpoint.weightFiles) {
    const seal = find(header);
    if (seal === undefined) continue;
    const bytes = await sources.bytes(header.file, header.offset, header.size);
    await refuseDamaged(seal, { sha256: sha256(bytes) }, sources, signal);
  }
}

function agrees({ sha256, crc32, size }: SealedSpan, computed: ComputedDigests): boolean {
  if (sha256 !== undefined && computed.sha256 !== undefined && sha256 !== computed.sha256) return false;
  if (crc32 === undefined || computed.crc32 === undefined) return true;
  const { chunkBytes, sums } = crc32;
  const found = chunkBytes === CHUNK_BYTES ? computed.crc32 : [joinCrc32(computed.crc32, size, CHUNK_BYTES)];
  return found.length === sums.length && found.every((sum, i) => sum === sums[i]);
}
