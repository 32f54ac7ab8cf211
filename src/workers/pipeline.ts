/** A lane's slots as a ring: reading runs ahead of working, working ahead of writing, within fixed memory. */
import type { BandBuffer, BandWorker } from "./pool.ts";

/**
 * For each item in order: `fill` a free slot, then start `use`; up to one `use` a slot is under way. The first
 * failure is thrown after all that was started has ended, so that no slot is touched afterwards.
 */
export async function pipelineBands<T>(
  lane: BandWorker,
  items: Iterable<T>,
  fill: (item: T, slot: BandBuffer) => Promise<void>,
  use: (item: T, slot: BandBuffer) => Promise<void>,
): Promise<void> {
  const busy = lane.buffers.map(() => Promise.resolve());
  let failure: { error: unknown } | undefined;
  let turn = 0;
  for (const item of items) {
    const i = turn++ % lane.buffers.length;
    await busy[i];
    if (failure !== undefined) break;
    const slot = lane.buffers[i]!;
    const fail = (error: unknown) => {
      failure ??= { error };
    };
    await fill(item, slot).then(() => {
      busy[i] = use(item, slot).catch(fail);
    }, fail);
  }
  await Promise.all(busy);
  if (failure !== undefined) throw failure.error;
}
