/** Reads a packed file: its front, its digests, its certificate, and its damage. */
import type { Checkpoint, RecastRecord, Span, Tensor } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { Store } from "../../src/core/io.ts";
import { parseJsonObject } from "../../src/core/json.ts";
import { trailerOf } from "../codec/certificate-trailer.ts";
import { damageOf, sealedSpans } from "./damage.ts";
import { type Front, readFront } from "./front.ts";
import type { PackedDigests } from "./seals.ts";
import { CONFIG, type PackedFile, type PackedTensor } from "./tensor-index.ts";

/** Opens the file with two reads; a third read, of 16 bytes, if a certificate follows the sealed part. */
export async function readPacked(store: Store): Promise<Checkpoint> {
  return withFront(store, (front, file) => {
    const { index, digests, config } = front;
    return {
      format: "packed",
      dialect: index.dialect,
      config: config === undefined ? {} : parseJsonObject(config, { file: CONFIG, nonFinite: true }),
      tensors: index.tensors.map((tensor) => tensorOf(tensor, file)),
      objects: [],
      sidecars: index.entries
        .map((entry) => ({ path: entry.path, span: spanOf(entry, file) }))
        .sort((a, b) => (a.path < b.path ? -1 : 1)),
      weightFiles: index.shards.map((shard) => ({ path: shard.path, header: spanOf(shard, file) })),
      recasts: index.tensors.flatMap((tensor) => recastOf(tensor, digests)),
      seals: sealedSpans(front, file),
      store,
    };
  });
}

/**
 * Digests of every tensor, side file and header, from the seals; no data is read.
 *
 * @throws codes of exit status 3, like `readPacked`
 */
export async function packedDigests(store: Store): Promise<PackedDigests> {
  return withFront(store, ({ digests }) => digests);
}

/**
 * The span of the certificate after the sealed part; undefined if there is none. No digest of the file covers it, because
 * the certificate contains its own digest.
 *
 * @throws TRAILING_BYTES when other bytes follow; codes of exit status 3, like `readPacked`
 */
export async function certificateSpan(store: Store): Promise<Span | undefined> {
  return withFront(store, (_front, _file, certificate) => certificate);
}

/**
 * All faults that a read of the whole file finds: damaged chunks, other digests, padding that is not zero.
 *
 * @throws codes of exit status 3, like `readPacked`, for a damaged front
 */
export async function* packedDamage(store: Store, signal?: AbortSignal): AsyncGenerator<IsologitError> {
  const { front, file } = await withFront(store, (front, file) => ({ front, file }));
  await using source = await store.open(file);
  yield* damageOf(source, front, file, signal);
}

/** Runs `use` on the front of the only file in the store. */
async function withFront<T>(
  store: Store,
  use: (front: Front, file: string, certificate: Span | undefined) => T,
): Promise<T> {
  const files = await store.list();
  const only = files[0];
  if (only === undefined || files.length > 1) {
    const message = `${store.url} holds ${files.length} files; a packed checkpoint is one`;
    throw new IsologitError("FORMAT_UNKNOWN", message, { file: store.url });
  }
  await using source = await store.open(only.path);
  const front = await readFront(source, only.path);
  const certificate = await trailerOf(source, front.head.dataEnd, only.path);
  return use(front, only.path, certificate);
}

function tensorOf({ name, dtype, shape, offset }: PackedTensor, file: string): Tensor {
  return { name, dtype, shape, pieces: [{ file, offset, start: shape.map(() => 0), shape }] };
}

function spanOf({ offset, size }: PackedFile, file: string): Span {
  return { file, offset, size };
}

function recastOf({ name, recast }: PackedTensor, digests: PackedDigests): readonly RecastRecord[] {
  const source = digests.tensors.get(name)?.source;
  if (recast === undefined || source?.sha256 === undefined) return [];
  const { sha256: sourceDigest, ...factors } = source;
  return [{ tensor: name, ...recast, sourceDigest, ...factors }];
}
