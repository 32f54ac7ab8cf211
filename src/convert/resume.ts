/** Finds tensors of an earlier run that need not be written again: their staged bytes have the digests in the journal. */
import { tensorKey } from "../core/checkpoint.ts";
import { bytesOf } from "../core/dtype.ts";
import { bandsOf } from "../core/gather.ts";
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
  const named = plan.jobs.flatMap(({ tensor }) => {
    const entry = staging.finished.get(tensorKey(tensor));
    return entry === undefined ? [] : [{ tensor, entry }];
  });
  await pool.each(named, async ({ tensor, entry }, worker) => {
    const place = places.get(entry.name)!; // the plan has a place for the tensor of each job
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
