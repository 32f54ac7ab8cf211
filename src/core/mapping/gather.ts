/** Moves over bands: what a role, or a tensor of another dialect, takes from the stored tensors of a checkpoint. */
import type { Tensor } from "../checkpoint.ts";
import { bitsOf } from "../dtype.ts";
import { IsologitError } from "../errors.ts";
import { type Extent, extentsOf } from "../read.ts";
import { type ElementRun, type Move, runsOf } from "./moves.ts";

/** Elements as moves from roles, and each role as moves from stored tensors. */
export interface ElementSource {
  readonly moves: readonly Move[];
  readonly roles: ReadonlyMap<string, readonly Move[]>;
}

/** A band of elements [lo, hi). */
export interface Band {
  readonly lo: number;
  readonly hi: number;
}

/** Bands start at multiples of this many elements, so that types narrower than a byte stay whole bytes. */
const BAND_STEP = 64;

/**
 * Runs of elements within a byte budget, from first to last. `width`: bytes an element, all its forms together.
 *
 * @param unit every band but the last is a multiple of it: a multiple of 64 of which one fits
 */
export function* bandsOf(count: number, width: number, maxBytes: number, unit = BAND_STEP): Generator<Band> {
  const step = Math.max(1, Math.floor(maxBytes / width / unit)) * unit;
  for (let lo = 0; lo < count; lo += step) yield { lo, hi: Math.min(count, lo + step) };
}

/** Elements of the fewest whole rows that are a unit of `bandsOf`. */
export function rowsUnit(columns: number): number {
  let shared = BAND_STEP; // a power of two
  while (columns % shared !== 0) shared /= 2;
  return columns * (BAND_STEP / shared);
}

/**
 * The file extents that make up a band; what no extent fills is padding and stays zero.
 *
 * @throws INTERNAL when the band mixes element types, which no plan may ask for
 */
export function gatherExtents(
  origin: ElementSource,
  band: Band,
  tensors: ReadonlyMap<string, Tensor>,
  width: number,
): Extent[] {
  const extents: Extent[] = [];
  for (const outer of runsOf(origin.moves, band.lo, band.hi)) {
    if (outer.of === null) continue;
    for (const inner of runsOf(origin.roles.get(outer.of) ?? [], outer.from, outer.from + outer.count)) {
      const tensor = inner.of === null ? undefined : tensors.get(inner.of);
      if (tensor === undefined || bitsOf(tensor.dtype) !== 8 * width) {
        throw new IsologitError(
          "INTERNAL",
          `${outer.of} draws on ${inner.of}, which is not there in the width asked for`,
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

/** One role, as an origin of its own. */
export function roleSource(
  role: string,
  count: number,
  roles: ReadonlyMap<string, readonly Move[]>,
): ElementSource {
  return { moves: [{ of: role, size: [count], fromAt: 0, from: [1], toAt: 0, to: [1] }], roles };
}

/** The stored tensor that an origin's `count` elements are the first ones of, in their order; undefined for any other. */
export function wholeTensorOf({ moves, roles }: ElementSource, count: number): string | undefined {
  const role = onlyRun(moves, count);
  return role === undefined ? undefined : onlyRun(roles.get(role) ?? [], count);
}

function onlyRun(moves: readonly Move[], count: number): string | undefined {
  const first = runsOf(moves, 0, count).next().value as ElementRun | undefined; // a generator of runs returns nothing else
  return first?.of != null && first.from === 0 && first.count === count ? first.of : undefined;
}
