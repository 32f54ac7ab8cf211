/**
 * Writes several tensors that are columns of one matrix, as the ranks of a row-parallel layer store it. The rows are read
 * once and scattered; tensor by tensor, eight ranks would read the matrix eight times.
 */
import { overflowError } from "../../cast/cast.ts";
import { readScale } from "../../checkpoint/scales/values.ts";
import { bitsOf, countOf, isFloat } from "../../core/dtype.ts";
import { readElements, roleSource } from "../../core/gather.ts";
import type { Sources } from "../../core/read.ts";
import { startBands } from "../../workers/pipeline.ts";
import type { BandWorker } from "../../workers/pool.ts";
import type { ColumnShare, ConversionRun, Job } from "../types.ts";
import { ROOM_TO_SHIFT, shiftedTo } from "./direct-bands.ts";
import type { StartedTensors } from "./started.ts";

/** A job for columns of a matrix, and the place of its tensor. */
export interface ScatterPart {
  readonly job: Job & { readonly columns: ColumnShare };
  readonly place: { readonly file: string; readonly offset: number };
}

/** Groups jobs that read columns of one matrix, if a buffer can hold one row of it; other jobs stay single. */
export function* groupJobs(jobs: readonly Job[], bufferBytes: number): Generator<readonly Job[]> {
  for (let i = 0; i < jobs.length; ) {
    const first = jobs[i]!;
    let end = i + 1;
    if (first.columns !== undefined && rowsIn(first, bufferBytes) > 0) {
      while (jobs[end]?.columns?.role === first.columns.role) end++;
    }
    yield jobs.slice(i, end);
    i = end;
  }
}

/** Number of rows of the whole matrix that fit into a buffer: as read, as cast, and once more as scattered. */
function rowsIn({ columns, sourceDtype, tensor, cast }: Job, bufferBytes: number): number {
  const [read, written] = [bitsOf(sourceDtype), bitsOf(tensor.dtype)];
  const rowBytes = (columns!.shape[1]! * (read + (cast === undefined ? 0 : written) + written)) / 8;
  return Math.floor(bufferBytes / rowBytes);
}

/** Starts tensors that are columns of one matrix. */
export async function scatterColumns(
  running: ConversionRun,
  sources: Sources,
  worker: BandWorker,
  parts: readonly ScatterPart[],
): Promise<StartedTensors> {
  const { plan, writer, staging, watch, allowOverflow, signal } = running;
  const { job } = parts[0]!;
  const { role, shape } = job.columns;
  const [rows, columns] = shape as [number, number];
  const [read, width] = [bitsOf(job.sourceDtype) / 8, bitsOf(job.tensor.dtype) / 8];
  const [scale] = job.cast?.sourceScales ?? []; // one matrix has one scale
  const sourceScale =
    scale === undefined ? null : await readScale(plan.source.tensors.get(scale.scale)!, sources);
  const origin = roleSource(role, countOf(shape), job.elementSource.roles);
  const bufferBytes = worker.buffers[0]!.bytes.byteLength;
  const room = bufferBytes - parts.length * ROOM_TO_SHIFT;
  const isShifted = room >= bufferBytes / 2 && rowsIn(job, room) > 0;
  const bands = await startBands(
    worker,
    runs(rows, rowsIn(job, isShifted ? room : bufferBytes)),
    async ({ lo, hi }, { bytes }) => {
      signal?.throwIfAborted();
      const band = { lo: lo * columns, hi: hi * columns };
      const target = bytes.subarray(0, (band.hi - band.lo) * read);
      await readElements(origin, band, plan.source.tensors, read, sources, target, signal);
    },
    async ({ lo, hi }, { at, bytes }) => {
      const count = (hi - lo) * columns;
      const [size, toSize] = [count * read, count * width];
      let free = job.cast === undefined ? size : size + toSize;
      const shares = parts.map(({ job: { columns: share }, place }) => {
        const step = (share.to - share.from) * width;
        const offset = place.offset + lo * step;
        const after = { at: at + free, bytes: bytes.subarray(free) };
        const target = isShifted ? shiftedTo(after, offset) : after;
        const out = target.bytes.subarray(0, (hi - lo) * step);
        free = target.at - at + out.byteLength;
        const [from, to] = [share.from * width, share.to * width];
        return { file: place.file, offset, out, share: { from, to, toAt: target.at } };
      });
      const cut = { at, rows: hi - lo, rowBytes: columns * width, parts: shares.map(({ share }) => share) };
      const call = { op: "columns", ...cut, sealed: writer.seal !== undefined } as const;
      if (job.cast === undefined) await worker.call(call);
      else {
        const { from, to, fromCodes: ofCodes = false } = job.cast;
        const cast = { from, to, scale: null, sourceScale, toAt: at + size, toSize, count };
        const { overflowAt } = await worker.call({ ...call, cast, ofCodes });
        if (overflowAt >= 0 && !allowOverflow && isFloat(to))
          throw overflowError(to, lo * columns + overflowAt);
      }
      await Promise.all(shares.map(({ file, offset, out }) => staging.writeAt(file, offset, out)));
      watch({ type: "advance", phase: "convert", bytes: size });
    },
  );
  const finished = Promise.all([worker.call({ op: "finish" }), bands.ended]);
  return { digests: finished.then(([{ columns }]) => columns) };
}

function* runs(count: number, step: number): Generator<{ lo: number; hi: number }> {
  for (let lo = 0; lo < count; lo += step) yield { lo, hi: Math.min(count, lo + step) };
}
