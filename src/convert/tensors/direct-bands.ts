/**
 * Bands whose writes can go past the page cache: each but the first begins a block of the file, and lies in memory as it
 * will lie in the file.
 */
import { type Band, bandsOf } from "../../core/gather.ts";
import { DIRECT_BLOCK } from "../../io/direct.ts";
import type { BandBuffer } from "../../workers/pool.ts";

/**
 * @param width   bytes of an element in all buffers together
 * @param written bytes of an element in the file; where it is not a power of two the bands lie anywhere
 * @param offset  where the first element goes in the file
 */
export function directBands(
  count: number,
  width: number,
  written: number,
  offset: number,
  bufferBytes: number,
): Generator<Band> {
  const unit = DIRECT_BLOCK / written;
  const room = bufferBytes - DIRECT_BLOCK; // for the shift
  const fits = unit * width <= room;
  if (!Number.isInteger(unit) || offset % written !== 0 || !fits) return bandsOf(count, width, room);
  return bandsOf(count, width, room, unit, (-offset & (DIRECT_BLOCK - 1)) / written);
}

/** The part of a buffer from the first address on that is as far into a block as byte `offset` of the file. */
export function shiftedTo({ at, bytes }: BandBuffer, offset: number): BandBuffer {
  const shift = (offset - at) & (DIRECT_BLOCK - 1);
  return { at: at + shift, bytes: bytes.subarray(shift) };
}
