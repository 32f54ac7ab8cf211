/** Which file extents a band of a role, or of a tensor of another dialect, consists of. */
import type { Tensor } from "./checkpoint.ts";
import { bitsOf } from "./dtype.ts";
import { IsologitError } from "./errors.ts";
import { countOfMove, type ElementRun, type Move, runsOf } from "./mapping/moves.ts";
import { type Extent, extentsOf, type Sources } from "./read.ts";

/** Where the elements of a tensor come from: moves from roles, and for each role moves from stored tensors. */
export interface ElementSource {
  readonly moves: readonly Move[];
  readonly roles: ReadonlyMap<string, readonly Move[]>;
}

/** A band of elements [lo, hi). */
export interface Band {
  readonly lo: number;
  readonly hi: number;
}

/** Bands start at multiples of this many elements, so that a band is whole bytes and whole blocks of every type. */
const BAND_STEP = 256;

/**
 * Consecutive bands of at most `maxBytes` each.
 *
 * @param width bytes of one element in all buffers together
 * @param unit  every band but the last is a multiple of this many elements; a multiple of 256, and one unit must fit
 * @param lead  elements of the first band that come before the first unit
 */
export function* bandsOf(
  count: number,
  width: number,
  maxBytes: number,
  unit = BAND_STEP,
  lead = 0,
): Generator<Band> {
  const step = Math.max(1, Math.floor(maxBytes / width / unit)) * unit;
  for (let lo = 0, hi = lead === 0 ? step : step - unit + lead; lo < count; lo = hi, hi = lo + step)
    yield { lo, hi: Math.min(count, hi) };
}

/** Elements in the smallest number of whole rows that is a `unit` of `bandsOf`. */
export function rowsUnit(columns: number): number {
  let shared = BAND_STEP; // a power of two
  while (columns % shared !== 0) shared /= 2;
  return columns * (BAND_STEP / shared);
}

/**
 * The file extents of a band. Elements that no extent fills are padding and stay zero.
 *
 * @throws INTERNAL if the band mixes element types; plans never ask for that
 */
export function gatherExtents(
  source: ElementSource,
  band: Band,
  tensors: ReadonlyMap<string, Tensor>,
  width: number,
): Extent[] {
  const extents: Extent[] = [];
  for (const outer of runsOf(source.moves, band.lo, band.hi)) {
    if (outer.of === null) continue;
    for (const inner of runsOf(source.roles.get(outer.of) ?? [], outer.from, outer.from + outer.count)) {
      const tensor = inner.of === null ? undefined : tensors.get(inner.of);
      if (tensor === undefined || bitsOf(tensor.dtype) !== 8 * width) {
        throw new IsologitError(
          "INTERNAL",
          `${outer.of} reads ${inner.of}, which does not exist with elements of ${width} bytes`,
        );
      }
      const at = (outer.to - band.lo + (inner.to - outer.from)) * width;
      for (const extent of extentsOf(tensor, inner.from, inner.from + inner.count)) {
        extents.push({ ...extent, to: extent.to + at });
      }
    }
  }
  return extents;
}

/** Most extents that exist at a time; a band of short runs, such as some columns of a matrix, has millions of them. */
const MAX_EXTENTS = 2 ** 16;

/**
 * Fills `target` with the elements of a band. Padding is zeros.
 *
 * @param width bytes of an element
 */
export async function readElements(
  source: ElementSource,
  band: Band,
  tensors: ReadonlyMap<string, Tensor>,
  width: number,
  sources: Sources,
  target: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const most = Math.max(1, Math.floor((MAX_EXTENTS * meanRun(source)) / BAND_STEP)) * BAND_STEP;
  for (let lo = band.lo; lo < band.hi; lo += most) {
    signal?.throwIfAborted();
    const part = { lo, hi: Math.min(band.hi, lo + most) };
    const extents = gatherExtents(source, part, tensors, width);
    const bytes = target.subarray((part.lo - band.lo) * width, (part.hi - band.lo) * width);
    if (extents.reduce((sum, { size }) => sum + size, 0) < bytes.byteLength) bytes.fill(0);
    await sources.read(extents, bytes, signal);
  }
}

/** Mean number of elements in a run, at the level with the shorter runs. */
function meanRun({ moves, roles }: ElementSource): number {
  const inner = [...new Set(moves.map(({ of }) => of))].map((of) =>
    of === null ? [] : (roles.get(of) ?? []),
  );
  return Math.min(...[moves, ...inner].map(meanRunOf));
}

function meanRunOf(moves: readonly Move[]): number {
  let [elements, runs] = [0, 0];
  for (const move of moves) {
    const count = countOfMove(move);
    const isRun = (move.to.at(-1) ?? 1) === 1 && (move.from.at(-1) ?? 1) === 1;
    elements += count;
    runs += isRun ? count / (move.size.at(-1) ?? 1) : count;
  }
  return runs === 0 ? Infinity : elements / runs;
}

/** The element source of one whole role. */
export function roleSource(
  role: string,
  count: number,
  roles: ReadonlyMap<string, readonly Move[]>,
): ElementSource {
  return { moves: [{ of: role, size: [count], fromAt: 0, from: [1], toAt: 0, to: [1] }], roles };
}

/** The stored tensor whose first `count` elements are exactly these elements, in order; undefined if there is none. */
export function wholeTensorOf({ moves, roles }: ElementSource, count: number): string | undefined {
  const role = onlyRun(moves, count);
  return role === undefined ? undefined : onlyRun(roles.get(role) ?? [], count);
}

function onlyRun(moves: readonly Move[], count: number): string | undefined {
  const first = runsOf(moves, 0, count).next().value as ElementRun | undefined; // the generator yields only runs and returns nothing
  return first?.of != null && first.from === 0 && first.count === count ? first.of : undefined;
}
