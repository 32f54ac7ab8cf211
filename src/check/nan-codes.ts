/** `check --read`: searches FP8 weights for codes that mean NaN or infinity. One such code makes all logits NaN. */
import type { Checkpoint, Piece, Tensor } from "../core/checkpoint.ts";
import { isFnuz, isFp8 } from "../core/dtype.ts";
import type { Finding } from "../core/finding.ts";
import { finding } from "../core/finding.ts";
import { tableOf } from "../core/float.ts";
import { Sources } from "../core/read.ts";

/** Bytes read at a time. */
const STEP_BYTES = 4 * 1024 * 1024;

/** One finding for each tensor with such codes. @param signal stops between two reads */
export async function checkCodes(checkpoint: Checkpoint, signal?: AbortSignal): Promise<readonly Finding[]> {
  await using files = new Sources(checkpoint.store);
  const findings: Finding[] = [];
  for (const tensor of checkpoint.tensors) {
    if (!isFp8(tensor.dtype) && !isFnuz(tensor.dtype)) continue;
    const found = await badCodes(tensor, tableOf(tensor.dtype), files, signal);
    if (found !== null) findings.push(found);
  }
  return findings;
}

async function badCodes(
  { name, pieces, shape }: Tensor,
  values: Float32Array,
  files: Sources,
  signal: AbortSignal | undefined,
): Promise<Finding | null> {
  let count = 0;
  let first: { readonly piece: Piece; readonly at: number; readonly code: number } | null = null;
  for (const piece of pieces) {
    if (piece.strides !== undefined) continue;
    const size = piece.shape.reduce((product, n) => product * n, 1);
    for (let offset = 0; offset < size; offset += STEP_BYTES) {
      signal?.throwIfAborted();
      const bytes = await files.bytes(piece.file, piece.offset + offset, Math.min(STEP_BYTES, size - offset));
      for (let i = 0; i < bytes.length; i++) {
        if (Number.isFinite(values[bytes[i]!])) continue;
        count++;
        first ??= { piece, at: offset + i, code: bytes[i]! };
      }
    }
  }
  if (first === null) return null;
  const { piece, at, code } = first;
  const element = elementIndex(piece, at, shape);
  const more = count > 1 ? `, and ${count - 1} more` : "";
  const message = `element ${element} has the code 0x${code.toString(16)}, which is not a finite number${more}: logits become NaN`;
  return finding("nan-code", "error", { file: piece.file, tensor: name, offset: piece.offset + at }, message);
}

/** The index in the whole tensor of an element of a piece, both in C order. */
function elementIndex({ start, shape: box }: Piece, at: number, shape: readonly number[]): number {
  let rest = at;
  let index = 0;
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = box[axis]!;
    index += ((rest % size) + start[axis]!) * stride;
    rest = Math.floor(rest / size);
    stride *= shape[axis]!;
  }
  return index;
}
