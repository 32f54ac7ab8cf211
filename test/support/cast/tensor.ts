/** One tensor recast in memory, start to end, by the caster that conversion drives band by band. */

import { type Caster, overflowError, scaleOf } from "../../../src/cast/cast.ts";
import { type FloatDType, isFp8, widthOf } from "../../../src/core/dtype.ts";
import { IsologitError } from "../../../src/core/errors.ts";

/** Memory that a caster works in: `size` bytes at `at` of `memory`, apart from the caster's scratch. */
export interface Arena {
  readonly caster: Caster;
  readonly memory: WebAssembly.Memory;
  readonly at: number;
  readonly size: number;
}

export interface Recastable {
  readonly name: string;
  readonly dtype: FloatDType;
  /** stored elements, little-endian, C order */
  readonly bytes: Uint8Array;
  /** FP8 only: factor from stored to real */
  readonly scale?: number;
}

export interface Recasted {
  readonly bytes: Uint8Array;
  /** FP8 only: largest |w| of the source and the factor from stored to real, both F32 */
  readonly amax?: number;
  readonly scale?: number;
}

/**
 * A tensor as another element type; FP8 with one scale, from the largest magnitude of the whole tensor.
 *
 * @throws NON_FINITE when a weight bound for FP8 is NaN or infinite; names tensor and flat index
 * @throws OVERFLOW   when a finite weight becomes infinite, unless that is allowed; names tensor and flat index
 */
export function recastTensor(
  arena: Arena,
  tensor: Recastable,
  to: FloatDType,
  { allowOverflow = false } = {},
): Recasted {
  const { caster } = arena;
  const { name, dtype, bytes } = tensor;
  const sourceScale = tensor.scale ?? null;
  const [read, written] = [widthOf(dtype), widthOf(to)];
  const count = bytes.byteLength / read;
  const bandCount = Math.floor(arena.size / (read + written));

  /** Calls `work` for each run of elements that fits, its source bytes in place at `arena.at`. */
  const inBands = (work: (lo: number, n: number) => void) => {
    for (let lo = 0; lo < count; lo += bandCount) {
      const n = Math.min(bandCount, count - lo);
      viewOf(arena, arena.at, n * read).set(bytes.subarray(lo * read, (lo + n) * read));
      try {
        work(lo, n);
      } catch (error) {
        throw placed(error, name, lo);
      }
    }
  };

  let recast: { amax: number; scale: number } | undefined;
  if (isFp8(to)) {
    let stored = 0;
    inBands((_, n) => {
      stored = Math.max(stored, caster.amax(dtype, arena.at, n));
    });
    const amax = Math.fround(stored * (sourceScale ?? 1));
    recast = { amax, scale: scaleOf(amax, to) };
  }
  const out = new Uint8Array(count * written);
  inBands((lo, n) => {
    const toAt = arena.at + n * read;
    const { overflowAt } = caster.cast(dtype, to, recast?.scale ?? null, sourceScale, arena.at, toAt, n);
    if (overflowAt >= 0 && !allowOverflow) throw overflowError(to, overflowAt);
    out.set(viewOf(arena, toAt, n * written), lo * written);
  });
  return { bytes: out, ...recast };
}

/** An index within a band as the index within the tensor, which is named. */
function placed(error: unknown, tensor: string, lo: number): unknown {
  if (!(error instanceof IsologitError) || error.at.index === undefined) return error;
  const at = { ...error.at, tensor, index: error.at.index + lo };
  return new IsologitError(error.code, error.message, at, { cause: error.cause, next: error.next });
}

function viewOf({ memory }: Arena, at: number, size: number): Uint8Array {
  return new Uint8Array(memory.buffer, at, size);
}
