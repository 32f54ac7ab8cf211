/** Stored tensors as byte extents of files, and their bounded reading. It knows no layout but a piece's own box. */
import type { Tensor } from "./checkpoint.ts";
import { bitsOf, stridesOf } from "./dtype.ts";
import { type ByteSource, readRange, type Store } from "./io.ts";
import { boxMove, type Move, runsOf } from "./mapping/moves.ts";

/** `size` bytes at `offset` of `file` belong at byte `to` of the target. */
export interface Extent {
  readonly file: string;
  readonly offset: number;
  readonly to: number;
  readonly size: number;
}

/** Where elements [lo, hi) of a stored tensor lie; `to` counts bytes from element lo. */
export function extentsOf(tensor: Tensor, lo: number, hi: number): Extent[] {
  const width = bitsOf(tensor.dtype) / 8; // a fraction for packed types, which are copied in whole bytes
  const strides = stridesOf(tensor.shape);
  return tensor.pieces.flatMap((piece) => {
    const move: Move = {
      of: piece.file,
      size: piece.shape,
      fromAt: 0,
      from: piece.strides ?? stridesOf(piece.shape),
      toAt: piece.start.reduce((sum, at, axis) => sum + at * strides[axis]!, 0),
      to: strides,
    };
    return [...runsOf(boxMove(move), lo, hi)].map(({ from, to, count }) => ({
      file: piece.file,
      offset: piece.offset + from * width,
      to: (to - lo) * width,
      size: count * width,
    }));
  });
}

/** Extents that lie further apart than this in a file are read alone: a page or two is cheaper read than skipped. */
const MAX_GAP_BYTES = 64 * 1024;
/** Scattered extents are read together, by way of a scratch buffer of at most this many bytes. */
const MAX_SCRATCH_BYTES = 8 * 1024 * 1024;

/** A zarr checkpoint has thousands of files, and a process may often open no more than 1024, of which it needs others. */
const MAX_OPEN_FILES = 64;

/** A file that is kept open, and how many use it now. */
interface Held {
  readonly source: Promise<ByteSource>;
  users: number;
}

/** The files of a store, opened on first use. Those not used for longest are closed again where many are open. */
export class Sources implements AsyncDisposable {
  readonly #store: Store;
  readonly #maxOpen: number;
  /** in the order of their last use */
  readonly #open = new Map<string, Held>();

  /** @param maxOpen  files kept open; more are open only while more are read at once */
  constructor(store: Store, maxOpen: number = MAX_OPEN_FILES) {
    this.#store = store;
    this.#maxOpen = maxOpen;
  }

  /** What `work` makes of a file, which stays open until then. */
  async use<T>(path: string, work: (source: ByteSource) => Promise<T>): Promise<T> {
    const held = this.#open.get(path) ?? { source: this.#store.open(path), users: 0 };
    this.#open.delete(path);
    this.#open.set(path, held); // the latest
    held.users++;
    try {
      return await work(await held.source);
    } finally {
      held.users--;
      await this.#closeIdle();
    }
  }

  async #closeIdle(): Promise<void> {
    for (const [path, { source, users }] of this.#open) {
      if (this.#open.size <= this.#maxOpen) return;
      if (users > 0) continue;
      this.#open.delete(path);
      await closed(source);
    }
  }

  bytes(path: string, offset: number, size: number): Promise<Uint8Array> {
    return this.use(path, (source) => readRange(source, offset, size));
  }

  /** Fills `target` from extents, in as few reads as their places allow. */
  async read(extents: readonly Extent[], target: Uint8Array, signal?: AbortSignal): Promise<void> {
    for (const group of grouped(extents)) {
      await this.use(group[0]!.file, (source) => readGroup(source, group, target, signal));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { source } of this.#open.values()) await closed(source);
  }
}

/** A file that could not be opened has nothing to close; whoever wanted it has the error. */
async function closed(source: Promise<ByteSource>): Promise<void> {
  const opened = await source.catch(() => null);
  await opened?.[Symbol.asyncDispose]();
}

async function readGroup(
  source: ByteSource,
  group: readonly Extent[],
  target: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const [first] = group;
  if (group.length === 1) {
    return source.readInto(target.subarray(first!.to, first!.to + first!.size), first!.offset, signal);
  }
  const last = group.at(-1)!;
  const scratch = new Uint8Array(last.offset + last.size - first!.offset);
  await source.readInto(scratch, first!.offset, signal);
  for (const { offset, to, size } of group) {
    target.set(scratch.subarray(offset - first!.offset, offset - first!.offset + size), to);
  }
}

/** Extents joined where they continue each other, then grouped where one read serves several. */
function grouped(extents: readonly Extent[]): Extent[][] {
  const sorted = [...extents].sort((a, b) =>
    a.file === b.file ? a.offset - b.offset : a.file < b.file ? -1 : 1,
  );
  const groups: Extent[][] = [];
  for (const extent of sorted) {
    const group = groups.at(-1);
    const last = group?.at(-1);
    if (group === undefined || last === undefined || last.file !== extent.file) {
      groups.push([extent]);
    } else if (last.offset + last.size === extent.offset && last.to + last.size === extent.to) {
      group[group.length - 1] = { ...last, size: last.size + extent.size };
    } else if (
      extent.offset - (last.offset + last.size) <= MAX_GAP_BYTES &&
      extent.offset + extent.size - group[0]!.offset <= MAX_SCRATCH_BYTES
    ) {
      group.push(extent);
    } else {
      groups.push([extent]);
    }
  }
  return groups;
}
