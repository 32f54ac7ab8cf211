/** Tensors that are used twice, for their amax and for the cast to FP8 with one scale: a worker holds them if it has the memory. */
import { bitsOf } from "../core/dtype.ts";
import type { Job } from "./types.ts";

/** Bytes of the largest tensor that can be held. */
export const largestHeld = (jobs: readonly Job[]): number =>
  Math.max(0, ...jobs.filter((job) => isHeld(job, Infinity)).map(readBytes));

/** Whether the elements of a job stay in memory between amax and cast. The amax of a shared scale comes from several tensors. */
export const isHeld = (job: Job, heldBytes: number): boolean =>
  needsAmax(job) && (job.cast!.sharedWith ?? []).length === 0 && readBytes(job) <= heldBytes;

/** Bytes that a job reads; a tensor that no worker holds is read twice, and once more for each tensor that shares its scale. */
export function bytesOfJob(job: Job, heldBytes: number): number {
  const once = !needsAmax(job) || isHeld(job, heldBytes);
  return (once ? 1 : 2 + (job.cast!.sharedWith?.length ?? 0)) * readBytes(job);
}

const needsAmax = ({ cast }: Job): boolean => cast?.scaleTo !== undefined && cast.blocks === undefined;

const readBytes = ({ count, sourceDtype }: Job): number => (count * bitsOf(sourceDtype)) / 8;
