/** Which tensors of an earlier run need not be written again: those whose staged bytes are what its journal says. */
import { tensorKey } from "../core/checkpoint.ts";
import { bytesOf } from "../core/dtype.ts";
import { bandsOf } from "../core/gather.ts";
import type { JournalEntry } from "../io/journal.ts";
import { pipelineBands } from "../workers/pipeline.ts";
import type { ConversionRun } from "./types.ts";

/**
 * A journal may name bytes that never reached the disk, or that were changed since. Each tensor that it names is read
 * and digested, after the files were given their sizes.
 */
export async function storedTensors(running: ConversionRun): Promise<ReadonlyMap<string, JournalEntry>> {
  const { plan, writer, staging, pool, watch, signal } = running;
  const places = new Map(plan.placement.tensors.map((place) => [place.name, place]));
  const stored = new Map<string, JournalEntry>();
  let differing = 0;
  const named = plan.jobs.flatMap(({ tensor }) => {
    const entry = staging.finished.get(tensorKey(tensor));
    return entry === undefined ? [] : [{ tensor, entry }];
  });
  await pool.each(named, async ({ tensor, entry }, lane) => {
    const place = places.get(entry.name)!; // every job's tensor has its place in the plan
    await pipelineBands(
      lane,
      bandsOf(bytesOf(tensor.dtype, tensor.shape), 1, lane.buffers[0]!.bytes.byteLength),
      async ({ lo, hi }, slot) => {
        signal?.throwIfAborted();
        await staging.readAt(place.file, place.offset + lo, slot.bytes.subarray(0, hi - lo));
      },
      async ({ lo, hi }, slot) => {
        await lane.call({ op: "band", at: slot.at, size: hi - lo, sealed: writer.seal !== undefined });
      },
    );
    const { sha256, crc32 } = await lane.call({ op: "finish" });
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
