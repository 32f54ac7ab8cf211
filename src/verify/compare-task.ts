/** One task of the bytes rung: compares its share of two models, for the process that judges all shares. */

import type { ModelWithScales } from "../checkpoint/load.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { ignoreEvents } from "../core/events.ts";
import { memoryOf } from "../inference/machine.ts";
import type { Task } from "../io/tasks/task-files.ts";
import { poolSize, WorkerPool } from "../workers/pool.ts";
import { bytesToCompare, refuseUncomparable } from "./bytes/bytes.ts";
import { type BytesOptions, type Comparisons, compareShare } from "./bytes/pieces.ts";
import { compareSettings } from "./settings/settings.ts";

/**
 * Compares the elements of a share of two models.
 *
 * @param known what tasks have found about the same bytes already: it is not read again
 * @returns null for models with other roles or shapes, whose elements are not compared
 * @throws DIGEST_MISMATCH, UNSUPPORTED, and read errors; a difference is a result
 */
export async function compareTask(
  a: ModelWithScales,
  b: ModelWithScales,
  task: Task,
  { strictScales, known, ...options }: RunOptions & Pick<BytesOptions, "strictScales" | "known">,
): Promise<Comparisons | null> {
  const { watch = ignoreEvents, signal, threads } = options;
  const { unlike } = await compareSettings(a, b, strictScales);
  if (unlike !== null) return null;
  refuseUncomparable(a, b);
  await using pool = new WorkerPool(poolSize(memoryOf(options), threads), watch);
  watch({ type: "phase", phase: "bytes", totalBytes: Math.ceil(bytesToCompare(a, b) / task.count) });
  return await compareShare({ a, b, pool, strictScales, known, phase: "bytes", watch, signal }, task);
}
