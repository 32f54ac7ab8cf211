/**
 * Overlaps reading, computing and writing of bands, in the fixed memory of one worker: its buffers are used in turn, by the
 * bands of one tensor and then by those of the next one.
 */
import type { BandBuffer, BandWorker } from "./pool.ts";

/** Bands that have all been filled. */
export interface StartedBands {
  /** of their last use; the first failure is thrown after all started work has ended, so that no buffer is touched later */
  readonly ended: Promise<void>;
}

/**
 * For each item in order: `fill` the next free buffer, then start `use`. Each buffer has at most one running `use`. What `use`
 * asks of the worker before its first `await` comes before all that is asked of the worker after this call.
 *
 * @returns when all items are filled, or one has failed: the next bands may be filled while the last ones are in use
 */
export async function startBands<T>(
  worker: BandWorker,
  items: Iterable<T>,
  fill: (item: T, buffer: BandBuffer) => Promise<void>,
  use: (item: T, buffer: BandBuffer) => Promise<void>,
): Promise<StartedBands> {
  const uses: Promise<void>[] = [];
  let failure: { error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
  };
  for (const item of items) {
    const { buffer, keep } = await worker.nextBuffer();
    if (failure !== undefined) break;
    await fill(item, buffer).then(() => {
      const used = use(item, buffer).catch(fail);
      keep(used);
      uses.push(used);
    }, fail);
  }
  const ended = Promise.all(uses).then(() => {
    if (failure !== undefined) throw failure.error;
  });
  ended.catch(() => {}); // marks an early failure as handled; the caller awaits it later
  return { ended };
}

/** As `startBands`. @returns after the last use */
export async function pipelineBands<T>(...work: Parameters<typeof startBands<T>>): Promise<void> {
  await (await startBands(...work)).ended;
}
