/** `convert --task`: runs one of the tasks that a plan is divided into. */
import type { RunOptions } from "../../checkpoint/options.ts";
import { refuseOverlap } from "../../convert/overlap.ts";
import { bytesWritten } from "../../convert/plan-summary.ts";
import { preparePlan, refuseOtherPlan } from "../../convert/prepare.ts";
import { interruptedError } from "../../convert/resume.ts";
import { runTask } from "../../convert/tasks/run-task.ts";
import { divideJobs } from "../../convert/tasks/shares.ts";
import { divisionMark } from "../../convert/tasks/source-stamps.ts";
import { IsologitError, systemError } from "../../core/errors.ts";
import { ignoreEvents } from "../../core/events.ts";
import { Staging } from "../../io/staging.ts";
import { lockTask, type Task, whileHeld } from "../../io/tasks/task-files.ts";
import { type PluginsReport, pluginsReport } from "../../plugins/plugin.ts";
import { WorkerPool } from "../../workers/pool.ts";
import { chosenBefore, readPlan } from "../planned/plan-file.ts";

/** Largest number of tasks of a plan. */
export const MAX_TASKS = 10_000;

export interface TaskOptions extends RunOptions {
  /** `merge` will replace a destination that exists */
  readonly overwrite?: boolean;
  /** bytes between two syncs to the disk; a killed task resumes from the last sync; default 1 GiB */
  readonly checkpointBytes?: number;
  /** as for `convert` */
  readonly directIo?: "auto" | "off";
}

/** What every task of a plan reports. */
export interface ShareReport extends PluginsReport {
  /** id of the plan */
  readonly plan: string;
  /** `index` counts from 0 */
  readonly task: { readonly index: number; readonly count: number };
  readonly source: { readonly address: string };
  readonly destination: { readonly path: string };
  /** folder with the files that the tasks write together */
  readonly staged: string;
  /** of the source; `mergeTask` also reads what the tasks wrote */
  readonly bytesRead: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
}

export interface TaskReport extends ShareReport {
  /** number of tensors of this task */
  readonly tensors: number;
  /** number of those that an earlier run of this task wrote */
  readonly kept: number;
  readonly bytesWritten: number;
}

/**
 * Writes the share of one task of a plan: neighbouring tensors with about as many bytes as any other share has. Tasks may run
 * in any order, at the same time and on several machines that share a disk. A task that runs again writes only what is
 * missing. `merge` makes the destination of what all tasks wrote.
 *
 * @param planFile path of a file that `plan` wrote
 * @param task its number, from 0, and the number of tasks, which is the same for all tasks of a plan
 * @throws PLAN_CHANGED if source or plan are not those of the file; DESTINATION_BUSY if another process runs
 *   this task; every code of `convert`. What was written stays for the next run of the task
 * @example
 * await convertTask("plan.json", { index: 0, count: 8 });
 */
export async function convertTask(
  planFile: string,
  task: { readonly index: number; readonly count: number },
  options: TaskOptions = {},
): Promise<TaskReport> {
  const started = performance.now();
  refuseTask(task);
  const { watch = ignoreEvents } = options;
  watch({ type: "phase", phase: "plan" });
  const run = await readPlan(planFile);
  const given = { ...run.options, ...options };
  const { format, planned } = await preparePlan(run.source, run.destination, given, {
    ...chosenBefore(run, options),
    keep: true,
  });
  await refuseOtherPlan(planFile, planned.id);
  for (const message of planned.warnings) watch({ type: "warning", message });
  await refuseOverlap(run.source, run.destination);
  const { overwrite = false, checkpointBytes, directIo } = options;
  const { allowOverflow = false } = given;
  await using lock = await lockTask(run.destination, task);
  const signal = whileHeld(lock, options.signal);
  const target = { destination: run.destination, container: format.writes.container, overwrite };
  try {
    await using staging = await Staging.open({
      ...{ ...target, resume: true, part: task, checkpointBytes, isDirect: directIo !== "off" },
      ...{ planId: divisionMark(planned.id, run.stamps), totalBytes: bytesWritten(planned) },
    });
    await using pool = new WorkerPool(planned.pool, watch);
    const running = { plan: planned, writer: format.writes, staging, pool, alone: false };
    const share = divideJobs(planned, task.count)[task.index]!; // a share for each task
    const work = await runTask({ ...running, allowOverflow, watch, signal }, share);
    return {
      plan: planned.id,
      task: { index: task.index, count: task.count },
      source: { address: run.source },
      destination: { path: run.destination },
      staged: staging.folder,
      ...work,
      seconds: (performance.now() - started) / 1000,
      peakRssBytes: process.resourceUsage().maxRSS * 1024,
      ...pluginsReport(options),
    };
  } catch (error) {
    if (lock.lost.aborted) throw lock.lost.reason;
    if (options.signal?.aborted === true) throw interruptedError(run.destination);
    throw systemError(error, { file: run.destination });
  }
}

/** @throws USAGE */
export function refuseTask({ index, count }: Task): void {
  const isValid = Number.isInteger(count) && count >= 1 && count <= MAX_TASKS;
  if (isValid && Number.isInteger(index) && index >= 0 && index < count) return;
  const expected = isValid
    ? `expected 0 to ${count - 1}, because tasks are counted from 0`
    : `expected 1 to ${MAX_TASKS} tasks`;
  throw new IsologitError("USAGE", `task ${index} of ${count}: ${expected}`);
}
