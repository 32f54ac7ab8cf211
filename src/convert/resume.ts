/** Resuming: which staged tensors of an earlier run need not be written again, and which errors leave staged files for it. */
import { tensorKey } from "../core/checkpoint.ts";
import { bytesOf } from "../core/dtype.ts";
import { type ErrorCode, IsologitError } from "../core/errors.ts";
import { bandsOf } from "../core/gather.ts";
import { stagingPath } from "../io/destination.ts";
import type { JournalEntry } from "../io/journal.ts";
import { pipelineBands } from "../workers/pipeline.ts";
import type { ConversionRun } from "./types.ts";

/**
 * A journal may name bytes that never reached the disk, or that have changed since. Each tensor in the journal is read and
 * digested, after the files have their full sizes.
 */
export async function findFinishedTensors(
  running: ConversionRun,
): Promise<ReadonlyMap<string, JournalEntry>> {
  const { plan, writer, staging, pool, watch, signal } = running;
  const places = new Map(plan.placement.tensors.map((place) => [place.name, place]));
  const stored = new Map<string, JournalEntry>();
  let differing = 0;
  const named = plan.manifest.tensors.flatMap((tensor) => {
    const entry = staging.finished.get(tensorKey(tensor));
    return entry === undefined ? [] : [{ tensor, entry }];
  });
  await pool.each(named, async ({ tensor, entry }, worker) => {
    if (running.trusted?.(entry.name)) return void stored.set(entry.name, entry);
    const place = places.get(entry.name)!; // the plan has a place for each tensor
    await pipelineBands(
      worker,
      bandsOf(bytesOf(tensor.dtype, tensor.shape), 1, worker.buffers[0]!.bytes.byteLength),
      async ({ lo, hi }, buffer) => {
        signal?.throwIfAborted();
        await staging.readAt(place.file, place.offset + lo, buffer.bytes.subarray(0, hi - lo));
      },
      async ({ lo, hi }, buffer) => {
        await worker.call({ op: "band", at: buffer.at, size: hi - lo, sealed: writer.seal !== undefined });
      },
    );
    const { sha256, crc32 } = await worker.call({ op: "finish" });
    const isSame = sha256 === entry.sha256 && String(crc32) === String(entry.crc32);
    if (isSame) stored.set(entry.name, entry);
    else differing++;
  });
  if (differing > 0) {
    const message = `${differing} staged tensors are not what the earlier run wrote: they are written again`;
    watch({ type: "warning", message });
  }
  return stored;
}

/** Faults of the source. To resume after them would mix two models or copy a wrong model. */
const OF_SOURCE: readonly ErrorCode[] = ["FILE_CHANGED", "CERTIFICATE_CONTRADICTED"];

/** Whether the staged files stay for `resume`. Completely written files stay, unless the source is not a model. */
export function isResumable(error: unknown, isWritten: boolean): boolean {
  if (!(error instanceof IsologitError) || OF_SOURCE.includes(error.code)) return false;
  return isWritten || error.exit === 4 || error.exit === 5;
}

/** The error of a conversion that its caller stopped. */
export function interruptedError(destination: string): IsologitError {
  return new IsologitError("INTERRUPTED", "the conversion was stopped", { file: stagingPath(destination) });
}
