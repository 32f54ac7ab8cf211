/** Divides the jobs of a plan between tasks, and finds out which tasks have not written their share. */
import { tensorKey } from "../../core/checkpoint.ts";
import { bytesOf } from "../../core/dtype.ts";
import { divideByBytes } from "../../io/tasks/divide.ts";
import type { Task } from "../../io/tasks/task-files.ts";
import { bytesOfJob } from "../held-tensors.ts";
import { isStored } from "../run.ts";
import type { Job, Plan } from "../types.ts";

/**
 * The jobs of each task, in order. A task gets neighbours, which together read about as many bytes as those of any other
 * task. No tensor is divided, because the scale of a tensor depends on all of its elements; columns of one matrix stay
 * together, because they are read together. A plan of few tensors leaves tasks without a job.
 */
export function divideJobs({ jobs }: Pick<Plan, "jobs">, count: number): readonly (readonly Job[])[] {
  // 0: the same on every machine, and not with the memory of this one
  const bytesOfUnit = (unit: readonly Job[]) => unit.reduce((sum, job) => sum + bytesOfJob(job, 0), 0);
  return divideByBytes(unitsOf(jobs), bytesOfUnit, count).map((units) => units.flat());
}

/** Jobs that one task must run together. */
function unitsOf(jobs: readonly Job[]): readonly (readonly Job[])[] {
  const units: Job[][] = [];
  for (const job of jobs) {
    const role = job.columns?.role;
    const last = units.at(-1);
    if (role !== undefined && last?.[0]?.columns?.role === role) last.push(job);
    else units.push([job]);
  }
  return units;
}

/** The tasks of which the journals do not name every tensor, with the number of missing tensors. */
export function unfinishedTasks(
  plan: Pick<Plan, "jobs">,
  count: number,
  finished: ReadonlyMap<string, unknown>,
): readonly { readonly task: Task; readonly missing: number; readonly tensors: number }[] {
  return divideJobs(plan, count).flatMap((share, index) => {
    const missing = share.filter((job) => !isStored(job, finished)).length;
    return missing === 0 ? [] : [{ task: { index, count }, missing, tensors: share.length }];
  });
}

/**
 * Bytes on both sides of a border between two tasks that a file system without coherent caches may have lost: a client of
 * NFS writes whole pages, with its own copy of the bytes that another client writes at the same time.
 */
const BORDER_BYTES = 4 * 1024 * 1024;

/** Keys of tensors that lie so close to those of another task that a file system could have mixed their pages. */
export function tensorsAtBorders(plan: Plan, count: number): ReadonlySet<string> {
  const taskOf = new Map(
    divideJobs(plan, count).flatMap((share, index) =>
      share.flatMap(({ tensor, cast }): [string, number][] => [
        [tensorKey(tensor), index],
        ...(cast?.scaleTo === undefined ? [] : [[cast.scaleTo, index] as [string, number]]),
      ]),
    ),
  );
  const sizes = new Map(
    plan.manifest.tensors.map((tensor) => [tensorKey(tensor), bytesOf(tensor.dtype, tensor.shape)]),
  );
  const places = plan.placement.tensors
    .map(({ name, file, offset }) => ({ name, file, offset, end: offset + sizes.get(name)! }))
    .sort((a, b) => (a.file === b.file ? a.offset - b.offset : a.file < b.file ? -1 : 1));
  const found = new Set<string>();
  for (const [i, place] of places.entries()) {
    for (let next = i + 1; next < places.length; next++) {
      const other = places[next]!;
      if (other.file !== place.file || other.offset - place.end > BORDER_BYTES) break;
      if (taskOf.get(other.name) === taskOf.get(place.name)) continue;
      found.add(place.name).add(other.name);
    }
  }
  return found;
}
