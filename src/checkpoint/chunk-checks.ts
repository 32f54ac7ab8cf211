/**
 * Compares checksums of chunks while a forward pass reads a tensor in bands. A chunk is compared as soon as all its bytes
 * were read, in any order. A chunk that is read in part, as in a token table, is not compared.
 */
import { crc32 } from "node:zlib";
import { joinCrc32 } from "../../formats/codec/crc32-join.ts";
import type { Checkpoint, SealedSpan } from "../core/checkpoint.ts";
import type { ByteSource } from "../core/io.ts";
import { digestMismatchError } from "../core/sealed-spans.ts";

export interface ChunkChecks {
  readonly checkpoint: Checkpoint;
  /** Reads the rest of chunks that were read in part, such as padded rows of a vocabulary. @throws DIGEST_MISMATCH */
  complete(signal: AbortSignal | undefined): Promise<void>;
}

/** The same checkpoint, with a store that throws DIGEST_MISMATCH after a read completes a damaged chunk. */
export function checkChunks(checkpoint: Checkpoint): Checkpoint {
  return withChunkChecks(checkpoint, checkpoint.seals).checkpoint;
}

/** As `checkChunks`, only for seals without a SHA-256, because another step compares the SHA-256. */
export function checkUndigestedChunks(checkpoint: Checkpoint): ChunkChecks {
  return withChunkChecks(
    checkpoint,
    checkpoint.seals?.filter(({ sha256 }) => sha256 === undefined),
  );
}

function withChunkChecks(checkpoint: Checkpoint, seals: readonly SealedSpan[] = []): ChunkChecks {
  const chunks = chunksOf(seals);
  if (chunks.size === 0) return { checkpoint, complete: async () => {} };
  const { store } = checkpoint;
  const open = async (path: string) => {
    const source = await store.open(path);
    const inFile = chunks.get(path);
    return inFile === undefined ? source : chunkedSource(source, inFile);
  };
  return {
    checkpoint: { ...checkpoint, store: { ...store, open } },
    async complete(signal) {
      for (const [path, inFile] of chunks) {
        const begun = inFile.filter(({ parts }) => parts !== undefined && parts.length > 0);
        if (begun.length === 0) continue;
        await using source = await open(path);
        for (const chunk of begun) await readRest(source, chunk, signal);
      }
    },
  };
}

/** Bytes read at a time. */
const STEP_BYTES = 4 * 1024 * 1024;

async function readRest(source: ByteSource, chunk: Chunk, signal: AbortSignal | undefined): Promise<void> {
  const { parts = [], from, to } = chunk;
  const ends = [from, ...parts.map((part) => part.to)];
  const starts = [...parts.map((part) => part.from), to];
  for (const [i, end] of starts.entries()) {
    for (let at = ends[i]!; at < end; ) {
      const size = Math.min(STEP_BYTES, end - at);
      await source.readInto(new Uint8Array(size), at, signal);
      at += size;
    }
  }
}

/** Bytes [from, to) of a file that were read, and their CRC-32. */
interface Part {
  readonly from: number;
  readonly to: number;
  readonly crc: number;
}

interface Chunk {
  readonly seal: SealedSpan;
  /** number of the chunk in the seal */
  readonly index: number;
  readonly from: number;
  readonly to: number;
  readonly crc: number;
  /** bytes that were read, sorted, with gaps between the parts; undefined after the whole chunk was correct */
  parts: readonly Part[] | undefined;
}

/** Chunks by file, sorted by offset. */
function chunksOf(seals: readonly SealedSpan[]): ReadonlyMap<string, readonly Chunk[]> {
  const chunks = new Map<string, Chunk[]>();
  for (const seal of seals) {
    if (seal.crc32 === undefined) continue;
    const inFile = chunks.get(seal.file) ?? [];
    chunks.set(seal.file, inFile);
    for (const [index, crc] of seal.crc32.sums.entries()) {
      const from = seal.offset + index * seal.crc32.chunkBytes;
      const to = Math.min(from + seal.crc32.chunkBytes, seal.offset + seal.size);
      inFile.push({ seal, index, from, to, crc, parts: [] });
    }
  }
  for (const inFile of chunks.values()) inFile.sort((a, b) => a.from - b.from);
  return chunks;
}

function chunkedSource(source: ByteSource, chunks: readonly Chunk[]): ByteSource {
  return {
    url: source.url,
    size: source.size,
    async readInto(target, offset, signal) {
      await source.readInto(target, offset, signal);
      const end = offset + target.byteLength;
      for (let i = firstEndingAfter(chunks, offset); i < chunks.length && chunks[i]!.from < end; i++) {
        const chunk = chunks[i]!;
        const [from, to] = [Math.max(offset, chunk.from), Math.min(end, chunk.to)];
        addPart(chunk, from, to, target.subarray(from - offset, to - offset));
      }
    },
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}

function firstEndingAfter(chunks: readonly Chunk[], offset: number): number {
  let [low, high] = [0, chunks.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (chunks[middle]!.to > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** @throws DIGEST_MISMATCH: all bytes of the chunk were read, and their CRC-32 differs */
function addPart(chunk: Chunk, from: number, to: number, bytes: Uint8Array): void {
  if (chunk.parts === undefined) return;
  // Parts inside the new part are replaced. If a part only overlaps the new part, its bytes were read before.
  const apart = chunk.parts.filter((part) => part.from < from || part.to > to);
  if (apart.some((part) => part.from < to && part.to > from)) return;
  const parts: Part[] = [];
  for (const part of [...apart, { from, to, crc: crc32(bytes) }].sort((a, b) => a.from - b.from)) {
    const last = parts.at(-1);
    if (last?.to !== part.from) parts.push(part);
    else parts[parts.length - 1] = joinParts(last, part);
  }
  chunk.parts = parts;
  const [part] = parts;
  if (part === undefined || part.from !== chunk.from || part.to !== chunk.to) return;
  chunk.parts = undefined;
  if (part.crc === chunk.crc) return;
  const { seal, index } = chunk;
  const name = `chunk ${index + 1} of ${seal.crc32!.sums.length} of ${seal.what}`;
  const message = `${name} is not what was written: the CRC-32 of its ${chunk.to - chunk.from} bytes differs`;
  throw digestMismatchError(seal, message, chunk.from);
}

function joinParts(left: Part, right: Part): Part {
  const [size, before] = [right.to - left.from, left.to - left.from];
  return { from: left.from, to: right.to, crc: joinCrc32([left.crc, right.crc], size, before) };
}
