/**
 * Bands whose writes can go past the page cache: each but the first begins a block of the file, and lies in memory as it
 * will lie in the file.
 */
import { type Band, bandsOf, rowsUnit } from "../../core/gather.ts";
import { DIRECT_BLOCK } from "../../io/direct.ts";
import type { BandBuffer } from "../../workers/pool.ts";

/** Bytes of a buffer that `shiftedTo` may skip. */
export const ROOM_TO_SHIFT = DIRECT_BLOCK;

/**
 * The bands of a run of elements.
 *
 * @param width   bytes of an element in all buffers together
 * @param written bytes of an element in the file; where it is not a power of two the bands begin anywhere in the file
 * @param block   elements that are stored together; a band is whole blocks
 * @param offset  where element 0 of the tensor goes in the file
 */
export function* directBands(
  { lo, hi }: Band,
  width: number,
  written: number,
  block: number,
  offset: number,
  bufferBytes: number,
): Generator<Band> {
  const unit = DIRECT_BLOCK / written;
  const room = bufferBytes - ROOM_TO_SHIFT;
  const start = offset + lo * written;
  const begins = block === 1 && Number.isInteger(unit) && start % written === 0 && unit * width <= room;
  const bands = begins
    ? bandsOf(hi - lo, width, room, unit, (-start & (DIRECT_BLOCK - 1)) / written)
    : bandsOf(hi - lo, width, room, rowsUnit(block));
  for (const band of bands) yield { lo: lo + band.lo, hi: lo + band.hi };
}

/** The part of a buffer from the first address on that is as far into a block as byte `offset` of the file. */
export function shiftedTo({ at, bytes }: BandBuffer, offset: number): BandBuffer {
  const shift = (offset - at) & (DIRECT_BLOCK - 1);
  return { at: at + shift, bytes: bytes.subarray(shift) };
}
