/**
 * A folder of torch.distributed.checkpoint: `.metadata`, and files whose entries are torch.save archives, each of one box of
 * a tensor. Only `.metadata` and the two ends of each archive are read.
 */
import type { Piece, SealedSpan, Span, Tensor } from "../../src/core/checkpoint.ts";
import { sameShape } from "../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError, withLocation } from "../../src/core/errors.ts";
import { type ByteSource, readSmall, type Store } from "../../src/core/io.ts";
import { MAX_PICKLE_BYTES } from "../codec/pickle/read.ts";
import { expectKind } from "../codec/pickle/value.ts";
import { nameSeals, pieceOf, readTorch } from "../codec/torch-zip/read.ts";
import { type DistChunk, type DistEntry, type DistTensor, parseDistIndex } from "./index-file.ts";
import { unstackLayers } from "./stacks.ts";

export const METADATA = ".metadata";

/** Archives opened at the same time: enough to hide the latency of the Hub, and below its limits. */
const ENTRIES_AT_ONCE = 16;

interface DistFolder {
  readonly tensors: readonly Tensor[];
  /** keys of pickled entries and of tensors outside `wanted`; they are not read */
  readonly objects: readonly string[];
  /** the archive of each pickled entry, by its key */
  readonly entries: ReadonlyMap<string, Span>;
  /** checksums of the tensors' entries */
  readonly seals: readonly SealedSpan[];
}

/**
 * @param folder  "" or a path in the store that ends with `/`
 * @param wanted  keys of the tensors whose entries are opened
 * @throws codes of exit status 3; each names the file and the tensor
 */
export async function readDist(
  store: Store,
  folder: string,
  wanted: (key: string) => boolean = () => true,
): Promise<DistFolder> {
  const at = { file: folder + METADATA };
  const index = parseDistIndex(await small(store, at.file), at);
  await refuseMisplaced(store, folder, [
    ...index.objects.map(({ entry }) => entry),
    ...index.tensors.flatMap(({ chunks }) => chunks.map(({ entry }) => entry)),
  ]);
  const tensors = index.tensors.filter(({ key }) => wanted(key));
  const located = await locateAll(store, folder, tensors);
  const stored = unstackLayers(
    tensors.map(({ key, dtype, shape, chunks }) => ({
      name: key,
      dtype,
      shape,
      pieces: chunks.map((chunk) => located.get(chunk)!.piece), // every chunk of a wanted tensor was located
    })),
  );
  return {
    tensors: stored,
    seals: nameSeals(
      [...located.values()].flatMap(({ seals }) => seals),
      stored,
    ),
    objects: [...index.objects, ...index.tensors.filter(({ key }) => !wanted(key))].map(({ key }) => key),
    entries: new Map(
      index.objects.map(({ key, entry: { path, offset, length } }) => [
        key,
        { file: folder + path, offset, size: length },
      ]),
    ),
  };
}

async function small(store: Store, path: string): Promise<Uint8Array> {
  try {
    return await readSmall(store, path, MAX_PICKLE_BYTES);
  } catch (error) {
    throw withLocation(error, { file: path });
  }
}

/** Checks that every entry is inside an existing file, and that no two entries overlap. */
async function refuseMisplaced(store: Store, folder: string, entries: readonly DistEntry[]): Promise<void> {
  const sizes = new Map((await store.list()).map(({ path, size }) => [path, size]));
  const sorted = entries.toSorted((a, b) =>
    a.path === b.path ? a.offset - b.offset : a.path < b.path ? -1 : 1,
  );
  for (const [i, { path, offset, length }] of sorted.entries()) {
    const at = { file: folder + path, offset };
    const size = sizes.get(folder + path);
    if (size === undefined) {
      throw new IsologitError("NOT_FOUND", `${folder}${METADATA} names a file that does not exist`, at);
    }
    if (offset + length > size) {
      const message = `${METADATA} places an entry of ${length} bytes here, but the file has ${size} bytes`;
      throw new IsologitError("TRUNCATED", message, at);
    }
    const before = sorted[i - 1];
    if (before?.path === path && before.offset + before.length > offset) {
      throw new IsologitError("SPAN_INVALID", "two entries overlap", at);
    }
  }
}

/** Place of the elements of a chunk, and the checksum in their entry. */
interface Located {
  readonly piece: Piece;
  readonly seals: readonly SealedSpan[];
}

/** Places of the elements of each chunk, file by file. */
async function locateAll(
  store: Store,
  folder: string,
  tensors: readonly DistTensor[],
): Promise<ReadonlyMap<DistChunk, Located>> {
  const found = new Map<DistChunk, Located>();
  const byFile = new Map<string, { tensor: DistTensor; chunk: DistChunk }[]>();
  for (const tensor of tensors) {
    for (const chunk of tensor.chunks) {
      const path = folder + chunk.entry.path;
      const stored = byFile.get(path);
      if (stored === undefined) byFile.set(path, [{ tensor, chunk }]);
      else stored.push({ tensor, chunk });
    }
  }
  for (const [file, stored] of byFile) {
    await using source = await store.open(file);
    for (let i = 0; i < stored.length; i += ENTRIES_AT_ONCE) {
      const some = stored.slice(i, i + ENTRIES_AT_ONCE);
      const settled = await Promise.allSettled(
        some.map(({ tensor, chunk }) => pieceIn(source, file, tensor, chunk)),
      );
      for (const [k, result] of settled.entries()) {
        const { tensor, chunk } = some[k]!;
        if (result.status === "rejected") throw withLocation(result.reason, { file, tensor: tensor.key });
        found.set(chunk, result.value);
      }
    }
  }
  return found;
}

/** The piece in an archive. Its tensor must be the whole box, with the shape and type that `.metadata` gives. */
async function pieceIn(
  source: ByteSource,
  file: string,
  { key, dtype }: DistTensor,
  { entry, start, shape }: DistChunk,
): Promise<Located> {
  const at: ErrorLocation = { file, tensor: key, offset: entry.offset };
  const archive = await readTorch(source, { file, part: { offset: entry.offset, size: entry.length } });
  const tensor = expectKind(archive.value, "tensor", "the value of an entry", at);
  if (tensor.dtype !== dtype) {
    const message = `its entry contains ${tensor.dtype}; ${METADATA} says ${dtype}`;
    throw new IsologitError("INDEX_MISMATCH", message, at);
  }
  if (!sameShape(tensor.shape, shape)) {
    const message = `its entry holds [${tensor.shape.join(", ")}]; ${METADATA} says [${shape.join(", ")}]`;
    throw new IsologitError("INDEX_MISMATCH", message, at);
  }
  return { piece: { ...pieceOf(archive, tensor), start }, seals: archive.seals };
}
