/** Where elements of stored tensors lie in files, and reads of them in bounded buffers. Layouts of roles are not used here. */
import type { Tensor } from "./checkpoint.ts";
import { bitsOf, blockElements, stridesOf } from "./dtype.ts";
import { IsologitError } from "./errors.ts";
import { type ByteSource, OpenPool, readRange, type Store } from "./io.ts";
import { boxMove, type Move, runsOf } from "./mapping/moves.ts";

/** `size` bytes at `offset` of `file`, which go to byte `to` of the target. */
export interface Extent {
  readonly file: string;
  readonly offset: number;
  readonly to: number;
  readonly size: number;
}

/**
 * Where elements [lo, hi) of a stored tensor lie; `to` counts bytes from element lo.
 *
 * @throws UNSUPPORTED, naming the tensor, for parts of blocks
 */
export function extentsOf(tensor: Tensor, lo: number, hi: number): Extent[] {
  const width = bitsOf(tensor.dtype) / 8; // not a whole number for packed types, which are copied in whole bytes
  const strides = stridesOf(tensor.shape);
  const block = blockElements(tensor.dtype);
  return tensor.pieces.flatMap((piece) => {
    const move: Move = {
      of: piece.file,
      size: piece.shape,
      fromAt: 0,
      from: piece.strides ?? stridesOf(piece.shape),
      toAt: piece.start.reduce((sum, at, axis) => sum + at * strides[axis]!, 0),
      to: strides,
    };
    return [...runsOf(boxMove(move), lo, hi)].map(({ from, to, count }) => {
      if ((from % block) + ((to - lo) % block) + (count % block) > 0) throw partOfBlock(tensor, block);
      return {
        file: piece.file,
        offset: piece.offset + from * width,
        to: (to - lo) * width,
        size: count * width,
      };
    });
  });
}

function partOfBlock({ name, dtype }: Tensor, block: number): IsologitError {
  const message = `${dtype} stores ${block} elements of a row together: columns inside such a block cannot be read alone`;
  return new IsologitError(
    "UNSUPPORTED",
    message,
    { tensor: name },
    { next: "convert it with `dtype` bf16 first" },
  );
}

/** Extents further apart than this are read separately; reading over a smaller gap is cheaper than a second read. */
const MAX_GAP_BYTES = 64 * 1024;
/** Extents that are read together go through a scratch buffer of at most this many bytes. */
const MAX_SCRATCH_BYTES = 8 * 1024 * 1024;

/** The files of a store, opened at first use. A zarr checkpoint has thousands of files, so not all stay open. */
export class Sources implements AsyncDisposable {
  readonly #pool: OpenPool<ByteSource>;

  /** @param maxOpen files that stay open; more are open only while more are read at the same time */
  constructor(store: Store, maxOpen?: number) {
    this.#pool = new OpenPool((path) => store.open(path), maxOpen);
  }

  /** The result of `work`; the file stays open until `work` ends. */
  use<T>(path: string, work: (source: ByteSource) => Promise<T>): Promise<T> {
    return this.#pool.use(path, work);
  }

  bytes(path: string, offset: number, size: number): Promise<Uint8Array> {
    return this.use(path, (source) => readRange(source, offset, size));
  }

  /** Fills `target` from extents, with one read for extents that are close together. */
  async read(extents: readonly Extent[], target: Uint8Array, signal?: AbortSignal): Promise<void> {
    for (const group of groupExtents(extents)) {
      await this.use(group[0]!.file, (source) => readGroup(source, group, target, signal));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
  }
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

/** Joins extents that continue each other, and groups those that one read can cover. */
function groupExtents(extents: readonly Extent[]): Extent[][] {
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
