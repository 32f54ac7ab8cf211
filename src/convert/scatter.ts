/**
 * Tensors that are columns of one matrix, as the ranks of a row-parallel layer hold it: its rows are read once and
 * scattered. Written one by one, eight ranks would read it eight times.
 */
import type { TensorDigests } from "../../formats/format.ts";
import { overflowError } from "../cast/cast.ts";
import { readScale } from "../checkpoint/scales.ts";
import { bitsOf, countOf } from "../core/dtype.ts";
import { gatherExtents, roleSource } from "../core/gather.ts";
import type { Sources } from "../core/read.ts";
import { Digest } from "../workers/digest.ts";
import { pipelineBands } from "../workers/pipeline.ts";
import type { BandWorker } from "../workers/pool.ts";
import type { ColumnShare, ConversionRun, Job } from "./types.ts";

/** A job of columns, and where its tensor goes. */
export interface ScatterPart {
  readonly job: Job & { readonly columns: ColumnShare };
  readonly place: { readonly file: string; readonly offset: number };
}

/** Jobs one by one, or those together that draw on the columns of one matrix, where a slot holds a row of it. */
export function* groupJobs(jobs: readonly Job[], slotBytes: number): Generator<readonly Job[]> {
  for (let i = 0; i < jobs.length; ) {
    const first = jobs[i]!;
    let end = i + 1;
    if (first.columns !== undefined && rowsIn(first, slotBytes) > 0) {
      while (jobs[end]?.columns?.role === first.columns.role) end++;
    }
    yield jobs.slice(i, end);
    i = end;
  }
}

/** Rows of the whole matrix that a slot holds: as they are read, cast, and once more as they are scattered. */
function rowsIn({ columns, sourceDtype, tensor, cast }: Job, slotBytes: number): number {
  const [read, written] = [bitsOf(sourceDtype), bitsOf(tensor.dtype)];
  const rowBytes = (columns!.shape[1]! * (read + (cast === undefined ? 0 : written) + written)) / 8;
  return Math.floor(slotBytes / rowBytes);
}

/** What is sealed of each part, in their order. */
export async function scatterColumns(
  running: ConversionRun,
  sources: Sources,
  lane: BandWorker,
  parts: readonly ScatterPart[],
): Promise<readonly TensorDigests[]> {
  const { plan, writer, staging, watch, allowOverflow, signal } = running;
  const { job } = parts[0]!;
  const { role, shape } = job.columns;
  const [rows, columns] = shape as [number, number];
  const [read, width] = [bitsOf(job.sourceDtype) / 8, bitsOf(job.tensor.dtype) / 8];
  const [scale] = job.cast?.sourceScales ?? []; // one matrix, one scale
  const sourceScale =
    scale === undefined ? null : await readScale(plan.source.tensors.get(scale.scale)!, sources);
  const origin = roleSource(role, countOf(shape), plan.source.roleSources);
  const digests = parts.map(() => new Digest());
  await pipelineBands(
    lane,
    runs(rows, rowsIn(job, lane.buffers[0]!.bytes.byteLength)),
    async ({ lo, hi }, { bytes }) => {
      signal?.throwIfAborted();
      const band = { lo: lo * columns, hi: hi * columns };
      const target = bytes.subarray(0, (band.hi - band.lo) * read);
      await sources.read(gatherExtents(origin, band, plan.source.tensors, read), target, signal);
    },
    async ({ lo, hi }, { at, bytes }) => {
      const count = (hi - lo) * columns;
      const size = count * read;
      const [start, toSize] = [job.cast === undefined ? 0 : size, count * width];
      if (job.cast !== undefined) {
        const { from, to } = job.cast;
        const cast = { from, to, scale: null, sourceScale, toAt: at + size, toSize, count };
        const { overflowAt } = await lane.call({ op: "band", at, size, cast, sealed: false });
        if (overflowAt >= 0 && !allowOverflow) throw overflowError(to, lo * columns + overflowAt);
      }
      const matrix = bytes.subarray(start, start + toSize);
      let free = start + toSize;
      const writes = parts.map(({ job: { columns: own }, place }, i) => {
        const step = (own.to - own.from) * width;
        const out = bytes.subarray(free, free + (hi - lo) * step);
        free += out.byteLength;
        for (let row = 0; row < hi - lo; row++) {
          const from = (row * columns + own.from) * width;
          out.set(matrix.subarray(from, from + step), row * step);
        }
        digests[i]!.update(out, writer.seal !== undefined);
        return staging.writeAt(place.file, place.offset + lo * step, out);
      });
      await Promise.all(writes);
      watch({ type: "advance", phase: "convert", bytes: size });
    },
  );
  if (job.cast !== undefined) await lane.call({ op: "finish" }); // what it digested was no tensor
  return digests.map((digest) => digest.result());
}

function* runs(count: number, step: number): Generator<{ lo: number; hi: number }> {
  for (let lo = 0; lo < count; lo += step) yield { lo, hi: Math.min(count, lo + step) };
}
