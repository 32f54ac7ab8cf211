/**
 * The seals of a packed file: digests that are known only after the last byte is written. Their place and size follow from
 * the index, so they can be in front of the data.
 *
 * ```text
 * each tensor   SHA-256 (32), CRC-32 of each chunk (4 each), and if it was recast:
 *               SHA-256 of the source's elements (32), amax (f32), scale (f32)
 * each entry    SHA-256 (32)
 * each shard    SHA-256 of its header (32)
 * the end       SHA-256 of the index's SHA-256 followed by all of the above (32)
 * ```
 */
import { isFp8, RECASTS } from "../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";
import { sha256Bytes } from "../../src/core/hash.ts";
import { CHUNK_BYTES, type TensorDigests } from "../format.ts";
import { sameBytes } from "./head.ts";
import type { Contents, PackedIndex, PackedTensor } from "./tensor-index.ts";

const DIGEST_BYTES = 32;
const RECAST_BYTES = DIGEST_BYTES + 8;

export interface PackedDigests {
  readonly tensors: ReadonlyMap<string, TensorDigests>;
  /** SHA-256 of side files, by path, hex */
  readonly entries: ReadonlyMap<string, string>;
  /** SHA-256 of the headers of weight files, by path, hex */
  readonly shards: ReadonlyMap<string, string>;
}

function chunkCount(size: number): number {
  return Math.ceil(size / CHUNK_BYTES);
}

/** Size of the seals for these contents, bytes. */
export function sealBytes(contents: Contents): number {
  let bytes = DIGEST_BYTES * (contents.entries.length + contents.shards.length + 1);
  for (const { size, recast } of contents.tensors) {
    bytes += DIGEST_BYTES + 4 * chunkCount(size) + (recast === undefined ? 0 : RECAST_BYTES);
  }
  return bytes;
}

/** @throws INTERNAL when a digest is missing or does not fit its tensor */
export function encodeSeals(index: PackedIndex, indexDigest: Uint8Array, digests: PackedDigests): Uint8Array {
  const bytes = new Uint8Array(sealBytes(index));
  const view = new DataView(bytes.buffer);
  let position = 0;
  const putDigest = (hex: string | undefined, what: string) => {
    if (hex === undefined || !/^[0-9a-f]{64}$/.test(hex)) throw internalError(`${what} has no SHA-256`);
    bytes.set(Buffer.from(hex, "hex"), position);
    position += DIGEST_BYTES;
  };
  for (const tensor of index.tensors) {
    const sealed = digests.tensors.get(tensor.name);
    putDigest(sealed?.sha256, tensor.name);
    const sums = sealed?.crc32 ?? [];
    if (sums.length !== chunkCount(tensor.size)) {
      throw internalError(`${sums.length} checksums for the ${tensor.size} bytes of ${tensor.name}`);
    }
    for (const sum of sums) {
      view.setUint32(position, sum, true);
      position += 4;
    }
    if (tensor.recast === undefined) continue;
    putDigest(sealed?.source?.sha256, `the source of ${tensor.name}`);
    const { amax, scale } = isScaled(tensor) ? (sealed?.source ?? {}) : { amax: 0, scale: 0 };
    if (amax === undefined || scale === undefined || !areF32(amax, scale)) {
      throw internalError(`amax ${amax} and scale ${scale} of ${tensor.name} are not f32`);
    }
    view.setFloat32(position, amax, true);
    view.setFloat32(position + 4, scale, true);
    position += 8;
  }
  for (const { path } of index.entries) putDigest(digests.entries.get(path), path);
  for (const { path } of index.shards) putDigest(digests.shards.get(path), `the header of ${path}`);
  bytes.set(sha256Bytes(indexDigest, bytes.subarray(0, position)), position);
  return bytes;
}

/**
 * @param at place of the seals, for errors
 * @throws DIGEST_MISMATCH when the seals are not those written with this index; SCALE_INVALID
 */
export function parseSeals(
  bytes: Uint8Array,
  index: PackedIndex,
  indexDigest: Uint8Array,
  at: { readonly file: string; readonly offset: number },
): PackedDigests {
  const end = bytes.byteLength - DIGEST_BYTES;
  if (!sameBytes(sha256Bytes(indexDigest, bytes.subarray(0, end)), bytes.subarray(end))) {
    throw new IsologitError("DIGEST_MISMATCH", "the seals are not those that were written", at);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let position = 0;
  const digest = (): string => {
    position += DIGEST_BYTES;
    return Buffer.from(bytes.subarray(position - DIGEST_BYTES, position)).toString("hex");
  };
  const tensors = new Map<string, TensorDigests>();
  for (const tensor of index.tensors) {
    const ofTensor = digest();
    const crc32 = Array.from({ length: chunkCount(tensor.size) }, (_, i) =>
      view.getUint32(position + 4 * i, true),
    );
    position += 4 * crc32.length;
    if (tensor.recast === undefined) {
      tensors.set(tensor.name, { sha256: ofTensor, crc32 });
      continue;
    }
    const source = { sha256: digest() };
    const here = { file: at.file, tensor: tensor.name, offset: at.offset + position };
    const amax = view.getFloat32(position, true);
    const scale = view.getFloat32(position + 4, true);
    position += 8;
    checkScale(tensor, amax, scale, here);
    tensors.set(tensor.name, {
      sha256: ofTensor,
      crc32,
      source: isScaled(tensor) ? { ...source, amax, scale } : source,
    });
  }
  const entries = new Map(index.entries.map(({ path }) => [path, digest()]));
  const shards = new Map(index.shards.map(({ path }) => [path, digest()]));
  return { tensors, entries, shards };
}

/** Only FP8 has a scale, and several scales are in a tensor of their own, which has its own digests. */
function isScaled({ recast }: PackedTensor): boolean {
  return recast !== undefined && recast.scales === undefined && isFp8(RECASTS[recast.kind].dtype);
}

function checkScale(tensor: PackedTensor, amax: number, scale: number, at: ErrorLocation): void {
  const fits = isScaled(tensor)
    ? Number.isFinite(amax) && amax >= 0 && Number.isFinite(scale) && scale > 0
    : amax === 0 && scale === 0;
  if (fits) return;
  const several = tensor.recast?.scales === undefined ? "" : " with several scales";
  const message = `amax ${amax} and scale ${scale} cannot be those of a recast to ${tensor.recast?.kind}${several}`;
  throw new IsologitError("SCALE_INVALID", message, at);
}

function areF32(...values: readonly number[]): boolean {
  return values.every((value) => Object.is(Math.fround(value), value));
}

function internalError(message: string): IsologitError {
  return new IsologitError("INTERNAL", message);
}
