/** Overlaps reading, computing and writing of bands, in the fixed memory of one worker: its buffers are used in turn. */
import type { BandBuffer, BandWorker } from "./pool.ts";

/**
 * For each item in order: `fill` a free buffer, then start `use`. Each buffer has at most one running `use`. The first
 * failure is thrown after all started work has ended, so that no buffer is touched later.
 */
export async function pipelineBands<T>(
  worker: BandWorker,
  items: Iterable<T>,
  fill: (item: T, buffer: BandBuffer) => Promise<void>,
  use: (item: T, buffer: BandBuffer) => Promise<void>,
): Promise<void> {
  const busy = worker.buffers.map(() => Promise.resolve());
  let failure: { error: unknown } | undefined;
  let turn = 0;
  for (const item of items) {
    const i = turn++ % worker.buffers.length;
    await busy[i];
    if (failure !== undefined) break;
    const buffer = worker.buffers[i]!;
    const fail = (error: unknown) => {
      failure ??= { error };
    };
    await fill(item, buffer).then(() => {
      busy[i] = use(item, buffer).catch(fail);
    }, fail);
  }
  await Promise.all(busy);
  if (failure !== undefined) throw failure.error;
}
