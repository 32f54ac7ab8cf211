/** Casts a matrix to E4M3 with a scale for each block, and writes codes and scales. */
import type { BlockScales } from "../../cast/blocks.ts";
import { widthOf } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import type { Sources } from "../../core/read.ts";
import type { Call } from "../../workers/calls.ts";
import { Digest } from "../../workers/digest.ts";
import { type StartedBands, startBands } from "../../workers/pipeline.ts";
import type { BandBuffer, BandWorker } from "../../workers/pool.ts";
import type { ConversionRun, Job } from "../types.ts";
import { ROOM_TO_SHIFT, shiftedTo } from "./direct-bands.ts";
import { type Place, readBand, shiftIndex } from "./read-band.ts";

interface Context {
  readonly running: ConversionRun;
  readonly sources: Sources;
  readonly worker: BandWorker;
}

interface BlockJob {
  readonly job: Job;
  readonly scales: BlockScales;
  readonly place: Place;
  readonly scalePlace: Place;
  /** digest the elements of the source too */
  readonly ofSource: boolean;
}

type BlockCall = Extract<Call, { op: "blocks" }>;

/** Rows [lo, hi) of the matrix, and what is done with them. */
interface RowBand extends Pick<BlockCall, "part" | "first"> {
  readonly lo: number;
  readonly hi: number;
}

/**
 * Whole rows of blocks are read once. A row of blocks that is larger than a buffer is read twice: for its scales, then for
 * its codes. The digests of the codes are in the worker afterwards.
 *
 * @returns when all is read; the digest of the scales is complete when the bands have ended
 * @throws NON_FINITE; PLAN_MEMORY if a buffer cannot hold one row
 */
export async function castBlocks(
  context: Context,
  blockJob: BlockJob,
): Promise<StartedBands & { readonly digest: Digest }> {
  const { running, worker } = context;
  const { staging, watch } = running;
  const { job, scales, place, scalePlace } = blockJob;
  const { columns, block } = scales;
  const rows = job.count / columns;
  const { fitting, isShifted } = rowsThatFit(job, scales, worker.buffers[0]!.bytes.byteLength);
  const digest = new Digest();
  let scaleAt = scalePlace.offset;
  const pass = (bands: readonly RowBand[]) =>
    startBands(
      worker,
      bands,
      ({ lo, hi }, buffer) =>
        readBand(running, context.sources, job, { lo: lo * columns, hi: hi * columns }, buffer),
      async (band, buffer) => {
        const start = band.lo * columns;
        const size = (band.hi - band.lo) * columns * widthOf(scales.from);
        const free = { at: buffer.at + size, bytes: buffer.bytes.subarray(size) };
        const target = isShifted ? shiftedTo(free, place.offset + start) : free;
        const { codes, stored } = await castRows(context, blockJob, band, buffer.at, target);
        // Answers come in order, and writes end in any order: the place of the scales is fixed before a write is awaited.
        const at = scaleAt;
        scaleAt += stored.byteLength;
        if (stored.byteLength > 0) digest.update(stored, running.writer.seal !== undefined);
        if (band.part === "observe") return;
        await Promise.all([
          staging.writeAt(place.file, place.offset + start, codes),
          ...(stored.byteLength > 0 ? [staging.writeAt(scalePlace.file, at, stored)] : []),
        ]);
        watch({ type: "advance", phase: "convert", bytes: size });
      },
    );
  if (fitting >= block[0]) {
    const whole = { part: "whole", first: true } as const;
    const { ended } = await pass([...bandsOfRows(0, rows, fitting - (fitting % block[0]), whole)]);
    return { ended, digest };
  }
  let ended = Promise.resolve();
  for (let top = 0; top < rows; top += block[0]) {
    const bottom = Math.min(rows, top + block[0]);
    const observed = await pass([...bandsOfRows(top, bottom, fitting, { part: "observe", first: false })]);
    const written = await pass([...bandsOfRows(top, bottom, fitting, { part: "codes", first: false })]);
    await ended; // of the row before
    ended = Promise.all([observed.ended, written.ended]).then(() => {});
    ended.catch(() => {}); // marks an early failure as handled; it is awaited after the next row, or by the caller
  }
  return { ended, digest };
}

/** Rows that a buffer holds with their codes and scales, and whether there is room to shift the codes for direct writes. */
function rowsThatFit(
  { tensor }: Job,
  { from, columns, block }: BlockScales,
  bufferBytes: number,
): { readonly fitting: number; readonly isShifted: boolean } {
  // codes and scales follow the elements in the buffer; four bytes a scale, and at most one for each element
  const rowBytes = columns * (widthOf(from) + 1) + 4 * Math.ceil(columns / block[1]);
  const [all, shifted] = [bufferBytes, bufferBytes - ROOM_TO_SHIFT].map((bytes) =>
    Math.floor(bytes / rowBytes),
  );
  if (all! <= 0) {
    const message = `a row of ${rowBytes} bytes does not fit into a buffer`;
    throw new IsologitError("PLAN_MEMORY", message, { tensor: tensor.name });
  }
  const isShifted = shifted! >= Math.min(all!, block[0]);
  return { fitting: isShifted ? shifted! : all!, isShifted };
}

/** Runs of at most `step` rows; `first` marks the run at the start. */
function* bandsOfRows(
  from: number,
  to: number,
  step: number,
  what: Pick<RowBand, "part" | "first">,
): Generator<RowBand> {
  for (let lo = from; lo < to; lo += step) {
    yield { ...what, lo, hi: Math.min(to, lo + step), first: what.first || lo === from };
  }
}

/** Casts rows from address `at` on. @returns codes and scales, at the start of `target` */
async function castRows(
  { running: { writer }, worker }: Context,
  { scales, ofSource }: BlockJob,
  { part, first, lo, hi }: RowBand,
  at: number,
  { at: toAt, bytes }: BandBuffer,
): Promise<{ readonly codes: Uint8Array; readonly stored: Uint8Array }> {
  const rows = hi - lo;
  const count = rows * scales.columns;
  const call = { op: "blocks", part, first, scales, at, rows, toAt, ofSource } as const;
  const { scaleBytes } = await worker
    .call({ ...call, sealed: writer.seal !== undefined })
    .catch((error: unknown) => {
      throw shiftIndex(error, lo * scales.columns);
    });
  return { codes: bytes.subarray(0, count), stored: bytes.subarray(count, count + scaleBytes) };
}
