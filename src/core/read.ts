/** Stored tensors as byte extents of files, and their bounded reading. It knows no layout but a piece's own box. */
import type { Tensor } from "./checkpoint.ts";
import { bitsOf, stridesOf } from "./dtype.ts";
import type { ByteSource, Store } from "./io.ts";
import { boxMove, type Move, runsOf } from "./layout.ts";

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
      toAt: piece.origin.reduce((sum, at, axis) => sum + at * strides[axis]!, 0),
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

/** The open files of a store; each is opened once, on first use. */
export class Sources implements AsyncDisposable {
  readonly #store: Store;
  readonly #open = new Map<string, Promise<ByteSource>>();

  constructor(store: Store) {
    this.#store = store;
  }

  source(path: string): Promise<ByteSource> {
    let source = this.#open.get(path);
    if (source === undefined) {
      source = this.#store.open(path);
      this.#open.set(path, source);
    }
    return source;
  }

  /** Fills `target` from extents, in as few reads as their places allow. */
  async read(extents: readonly Extent[], target: Uint8Array, signal?: AbortSignal): Promise<void> {
    for (const group of grouped(extents)) {
      const [first] = group;
      const source = await this.source(first!.file);
      if (group.length === 1) {
        await source.readInto(target.subarray(first!.to, first!.to + first!.size), first!.offset, signal);
        continue;
      }
      const last = group.at(-1)!;
      const scratch = new Uint8Array(last.offset + last.size - first!.offset);
      await source.readInto(scratch, first!.offset, signal);
      for (const { offset, to, size } of group) {
        target.set(scratch.subarray(offset - first!.offset, offset - first!.offset + size), to);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const sources = await Promise.allSettled(this.#open.values());
    for (const source of sources)
      if (source.status === "fulfilled") await source.value[Symbol.asyncDispose]();
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
