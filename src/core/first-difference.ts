/** Two stored tensors that must be the same bytes: compared whole, or looked at in a few places. */
import type { Tensor } from "./checkpoint.ts";
import { bitsOf, countOf } from "./dtype.ts";
import { bandsOf } from "./mapping/gather.ts";
import { extentsOf, type Sources } from "./read.ts";

/**
 * The first element in which two tensors of one shape differ, or -1; 0 where their types do.
 *
 * @param room holds a band of each, at least 128 elements of both
 */
export async function findFirstDifference(
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

/** Elements of each sample; a matrix that was trained apart differs in nearly all. */
const SAMPLE = 2048;

/** As `firstUnlike`, but only the first, the middle and the last elements are read: -1 says that those are alike. */
export async function findSampledDifference(a: Tensor, b: Tensor, sources: Sources): Promise<number> {
  if (a.dtype !== b.dtype) return 0;
  const [width, count] = [bitsOf(a.dtype) / 8, countOf(a.shape)];
  const size = Math.min(SAMPLE, count);
  for (const lo of [0, Math.floor((count - size) / 2), count - size]) {
    const read = async (tensor: Tensor) => {
      const bytes = new Uint8Array(size * width);
      await sources.read(extentsOf(tensor, lo, lo + size), bytes);
      return bytes;
    };
    const [left, right] = [await read(a), await read(b)];
    const at = left.findIndex((byte, i) => byte !== right[i]);
    if (at >= 0) return lo + Math.floor(at / width);
  }
  return -1;
}
