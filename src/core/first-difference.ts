/** Compares two stored tensors that must have equal bytes: all of them, or a few samples. */
import type { Tensor } from "./checkpoint.ts";
import { bitsOf, countOf } from "./dtype.ts";
import { bandsOf } from "./gather.ts";
import { extentsOf, type Sources } from "./read.ts";

/**
 * Index of the first element in which two tensors of one shape differ; -1 if none does; 0 if their types differ.
 *
 * @param buffer holds a band of each tensor, at least 128 elements of both
 */
export async function findFirstDifference(
  a: Tensor,
  b: Tensor,
  sources: Sources,
  buffer: Uint8Array,
  signal?: AbortSignal,
): Promise<number> {
  if (a.dtype !== b.dtype) return 0;
  const width = bitsOf(a.dtype) / 8;
  for (const { lo, hi } of bandsOf(countOf(a.shape), 2 * width, buffer.byteLength)) {
    const size = (hi - lo) * width;
    const [left, right] = [buffer.subarray(0, size), buffer.subarray(size, 2 * size)];
    await sources.read(extentsOf(a, lo, hi), left, signal);
    await sources.read(extentsOf(b, lo, hi), right, signal);
    if (Buffer.compare(left, right) === 0) continue;
    return lo + Math.floor(left.findIndex((byte, i) => byte !== right[i]) / width);
  }
  return -1;
}

/** Elements of each sample. Two matrices that were trained separately differ in nearly every element. */
const SAMPLE = 2048;

/** Like `findFirstDifference`, but reads only the first, the middle and the last elements; -1 if these are equal. */
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
