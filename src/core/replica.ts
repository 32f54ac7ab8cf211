/** Two stored tensors that must be the same bytes. */
import type { Tensor } from "./checkpoint.ts";
import { bitsOf, countOf } from "./dtype.ts";
import { bandsOf } from "./gather.ts";
import { extentsOf, type Sources } from "./read.ts";

/**
 * The first element in which two tensors of one shape differ, or -1; 0 where their types do.
 *
 * @param room holds a band of each, at least 128 elements of both
 */
export async function firstUnlike(
  a: Tensor,
  b: Tensor,
  sources: Sources,
  room: Uint8Array,
  signal?: AbortSignal,
): Promise<number> {
  if (a.dtype !== b.dtype) return 0;
  const width = bitsOf(a.dtype) / 8;
  for (const { lo, hi } of bandsOf(countOf(a.shape), 2 * width, room.byteLength)) {
    const size = (hi - lo) * width;
    const [left, right] = [room.subarray(0, size), room.subarray(size, 2 * size)];
    await sources.read(extentsOf(a, lo, hi), left, signal);
    await sources.read(extentsOf(b, lo, hi), right, signal);
    if (Buffer.compare(left, right) === 0) continue;
    return lo + Math.floor(left.findIndex((byte, i) => byte !== right[i]) / width);
  }
  return -1;
}
