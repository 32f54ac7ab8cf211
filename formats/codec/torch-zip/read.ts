/**
 * Reads a file of `torch.save`: a zip of a pickle, `data.pkl`, and the storages of its tensors, `data/0`, `data/1` and so on,
 * all below one folder. The archive may be a part of a file, such as an entry of a `.distcp` file.
 */
import {
  type Piece,
  type SealedSpan,
  type Span,
  type Tensor,
  tensorKey,
} from "../../../src/core/checkpoint.ts";
import { stridesOf, widthOf } from "../../../src/core/dtype.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import { type ByteSource, readRange } from "../../../src/core/io.ts";
import type { Meaning } from "../pickle/globals.ts";
import { type GlobalUse, MAX_PICKLE_BYTES, readPickle } from "../pickle/read.ts";
import { storageBytes } from "../pickle/torch.ts";
import type { PickleStorage, PickleTensor, PickleValue } from "../pickle/value.ts";
import { holdEnds, sliceOf } from "../slice.ts";
import { locateEntry, readDirectory, readEntry, type ZipEntry } from "./directory.ts";

export interface TorchArchive {
  readonly file: string;
  /** the saved value */
  readonly value: PickleValue;
  /** place of the bytes of each storage in `file`, by its key */
  readonly storages: ReadonlyMap<string, Span>;
  /** the CRC-32 of each storage, unless torch was configured to write none */
  readonly seals: readonly SealedSpan[];
}

interface TorchOptions {
  /** path in the store, for pieces and errors */
  readonly file: string;
  /** the bytes of the source that are the archive; default: all */
  readonly part?: { readonly offset: number; readonly size: number };
  readonly onGlobal?: (use: GlobalUse) => void;
  /** meanings of further names in the pickle */
  readonly moreMeanings?: (name: string) => Meaning | undefined;
}

/** Enough for the directory and the pickle of a small archive; measured: 1 kB each. */
const ENDS_BYTES = 4096;
/** Local headers read at the same time, to hide the latency of a store. */
const HEADERS_AT_ONCE = 16;

/**
 * Reads the directory, the pickle and the headers of storages, and at most 4 KiB of tensors.
 *
 * @throws codes of exit status 3, each with the file and, if known, the offset in it
 */
export async function readTorch(source: ByteSource, options: TorchOptions): Promise<TorchArchive> {
  const { file, part, ...names } = options;
  const base = part?.offset ?? 0;
  const inFile = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      throw shiftOffset(error, base, file);
    }
  };
  const whole = part === undefined ? source : sliceOf(source, part.offset, part.size, file);
  const { archive, entries, root, span, bytes } = await inFile(open(whole, file));
  const pickle = readPickle(bytes, { file, base: base + span.offset, ...names });
  const wanted = storageEntries(pickle.storages, root, entries, file);
  const storages = await inFile(locateAll(archive, wanted, file));
  for (const [key, at] of storages) storages.set(key, { ...at, offset: base + at.offset });
  const seals = [...wanted].flatMap(([key, entry]) => sealOf(entry, file, storages.get(key)!));
  return { file, value: pickle.value, storages, seals };
}

/** The directory of the archive, and the bytes of its pickle. */
async function open(source: ByteSource, file: string) {
  const archive = await holdEnds(source, ENDS_BYTES);
  await checkStart(archive, file);
  const all = await readDirectory(archive, file);
  const root = rootOf(all, file);
  const entries = new Map(all.map((entry) => [entry.name, entry]));
  await checkByteOrder(archive, entries.get(`${root}byteorder`), file);
  const pickle = entries.get(`${root}data.pkl`)!; // `rootOf` found the root by this entry
  return { archive, entries, root, ...(await readEntry(archive, pickle, file, MAX_PICKLE_BYTES)) };
}

/** The entry of each storage, with the size that the pickle gives. @throws SPAN_INVALID */
function storageEntries(
  storages: readonly PickleStorage[],
  root: string,
  entries: ReadonlyMap<string, ZipEntry>,
  file: string,
): Map<string, ZipEntry> {
  const wanted = new Map<string, ZipEntry>();
  for (const storage of storages) {
    const entry = entries.get(`${root}data/${storage.key}`);
    const bytes = storageBytes(storage, { file });
    if (entry?.size !== bytes) {
      const found = entry === undefined ? "no such entry" : `${entry.size} bytes`;
      const message = `storage ${storage.key} has ${bytes} bytes by its pickle; the archive has ${found}`;
      throw new IsologitError("SPAN_INVALID", message, { file });
    }
    wanted.set(storage.key, entry);
  }
  return wanted;
}

/** `tensor` as a piece of the archive's file: a box of the tensor's shape at the origin. */
export function pieceOf(archive: TorchArchive, tensor: PickleTensor): Piece {
  const { dtype, shape, strides, offset, storage } = tensor;
  const span = archive.storages.get(storage.key)!; // every storage in the pickle was located
  const cOrder = stridesOf(shape);
  const plain = shape.includes(0) || shape.every((n, axis) => n === 1 || strides[axis] === cOrder[axis]);
  return {
    file: archive.file,
    offset: span.offset + offset * widthOf(dtype),
    start: shape.map(() => 0),
    shape,
    ...(!plain && { strides }),
  };
}

function sealOf({ name, size, crc32 }: ZipEntry, file: string, { offset }: Span): readonly SealedSpan[] {
  if (crc32 === 0 || size === 0) return [];
  return [{ what: `entry ${name}`, file, offset, size, crc32: { chunkBytes: size, sums: [crc32] } }];
}

/** Seals of storages, each with the name of the tensor that starts at the same byte. */
export function nameSeals(seals: readonly SealedSpan[], tensors: readonly Tensor[]): readonly SealedSpan[] {
  const byPlace = new Map(
    tensors.flatMap((tensor) =>
      tensor.pieces.map(({ file, offset }) => [`${offset} ${file}`, tensorKey(tensor)] as const),
    ),
  );
  return seals.map((seal) => {
    const tensor = byPlace.get(`${seal.offset} ${seal.file}`);
    return tensor === undefined ? seal : { ...seal, tensor };
  });
}

export function tensorOf(archive: TorchArchive, name: string, tensor: PickleTensor): Tensor {
  return { name, dtype: tensor.dtype, shape: tensor.shape, pieces: [pieceOf(archive, tensor)] };
}

/** Names known files that are not zip archives. */
async function checkStart(source: ByteSource, file: string): Promise<void> {
  const start = Buffer.from(await readRange(source, 0, Math.min(source.size, 32)));
  if (start.toString("latin1", 0, 4) === "PK\x03\x04") return;
  const at = { file, offset: 0 };
  if (start[0] === 0x80 && start.includes(LEGACY_MAGIC)) {
    const next = `if you trust it (loading executes it; run \`isologit scan\` first), save it again: \`python3 -c "import sys,torch; [torch.save(torch.load(f, map_location='cpu', weights_only=False), f) for f in sys.argv[1:]]" FILES\``;
    throw new IsologitError(
      "UNSUPPORTED",
      "torch's format before version 1.6, a sequence of pickles, not a zip",
      at,
      { next },
    );
  }
  if (start[0] === 0x80) {
    throw new IsologitError("UNSUPPORTED", "a bare pickle, not an archive of torch.save", at, {
      next: "run `isologit scan` on it: it shows what it would execute",
    });
  }
  const code = source.size < 22 ? "TRUNCATED" : "ARCHIVE_INVALID";
  throw new IsologitError(code, "it does not start like a zip archive", at);
}

/**
 * LONG1 of ten bytes, the number 0x1950a86a20f9469cfc6c: the start of files that torch wrote before version 1.6. From pickle
 * protocol 4 on, the length of a frame is before it.
 */
const LEGACY_MAGIC = Buffer.from("8a0a6cfc9c46f9206aa85019", "hex");

/** The folder of all entries, with its slash: the text before `data.pkl`. */
function rootOf(entries: readonly ZipEntry[], file: string): string {
  const roots = entries.flatMap(({ name }) => /^([^/]+\/)data\.pkl$/.exec(name)?.[1] ?? []);
  if (roots.length === 1) return roots[0]!;
  const message = `the archive has ${roots.length} pickles named FOLDER/data.pkl, expected one`;
  throw new IsologitError("ARCHIVE_INVALID", message, { file });
}

/** Checks the byte order. The entry exists since torch 2.1; without it, numbers are little-endian. */
async function checkByteOrder(source: ByteSource, entry: ZipEntry | undefined, file: string): Promise<void> {
  if (entry === undefined) return;
  const order = Buffer.from((await readEntry(source, entry, file, 16)).bytes).toString("latin1");
  if (order === "little") return;
  const message = `the byte order is ${JSON.stringify(order)}; only little-endian files are read`;
  throw new IsologitError(
    "UNSUPPORTED",
    message,
    { file },
    {
      next: "load the file with torch on a usual machine and save it again",
    },
  );
}

async function locateAll(
  source: ByteSource,
  entries: ReadonlyMap<string, ZipEntry>,
  file: string,
): Promise<Map<string, Span>> {
  const spans = new Map<string, Span>();
  const all = [...entries];
  for (let i = 0; i < all.length; i += HEADERS_AT_ONCE) {
    const some = all.slice(i, i + HEADERS_AT_ONCE);
    const found = await Promise.all(some.map(([, entry]) => locateEntry(source, entry, file)));
    for (const [k, span] of found.entries()) spans.set(some[k]![0], span);
  }
  return spans;
}

/** The same error, with an offset from the start of the file in place of one from the start of the archive. */
function shiftOffset(error: unknown, base: number, file: string): unknown {
  if (!(error instanceof IsologitError) || error.at.offset === undefined || error.at.file !== file)
    return error;
  const { cause, next, at } = error;
  return new IsologitError(
    error.code,
    error.message,
    { ...at, offset: base + error.at.offset },
    { cause, next },
  );
}
