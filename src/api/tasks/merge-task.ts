/** `merge --task`: compares a share of what the tasks of a plan wrote, for the merge. */

import { bytesWritten } from "../../convert/plan-summary.ts";
import { interruptedError } from "../../convert/resume.ts";
import { IsologitError, systemError } from "../../core/errors.ts";
import { contentPath, stagingPath } from "../../io/destination.ts";
import { Staging } from "../../io/staging.ts";
import type { Task } from "../../io/tasks/task-files.ts";
import { type PluginsReport, pluginsReport } from "../../plugins/plugin.ts";
import { writeComparisons } from "../../verify/bytes/comparison-file.ts";
import { compareTask } from "../../verify/compare-task.ts";
import { loadWritten, markWritten, type PreparedConversion, prepareConversion } from "../convert.ts";
import { chosenBefore, type ReadPlan, readPlan } from "../planned/plan-file.ts";
import { fillStaging } from "../write-verified.ts";
import { refuseTask, type TaskOptions } from "./convert-task.ts";
import { holdTasks } from "./merge.ts";

export interface MergeTaskReport extends PluginsReport {
  /** id of the plan */
  readonly plan: string;
  /** `index` counts from 0 */
  readonly task: { readonly index: number; readonly count: number };
  readonly source: { readonly address: string };
  readonly destination: { readonly path: string };
  /** folder with the files that the tasks write together */
  readonly staged: string;
  /** number of roles, scales and copies of this share */
  readonly compared: number;
  /** number of those that differ; `merge` judges them */
  readonly different: number;
  /** of source and destination */
  readonly bytesRead: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
}

/**
 * Compares one share of what the tasks of a plan wrote with the source, byte by byte: neighbouring tensors with about as many
 * bytes as any other share has. What was written is opened and loaded anew. The first such task completes the staged files.
 * `merge` then reads only what no task has compared, and accepts what a task found only about files that have not changed since.
 *
 * @param planFile path of a file that `plan` wrote
 * @param task its number, from 0, and the number of tasks, which need not be that of `convertTask`
 * @throws TASKS_UNFINISHED if a task of the conversion has not ended; every code of `convert`. The staged files stay after
 *   every error
 * @example
 * await mergeTask("plan.json", { index: 0, count: 8 });
 */
export async function mergeTask(
  planFile: string,
  task: { readonly index: number; readonly count: number },
  options: TaskOptions = {},
): Promise<MergeTaskReport> {
  refuseTask(task);
  const run = await readPlan(planFile);
  const { source, destination } = run;
  const given = { ...run.options, ...options, planFile, verify: "bytes" } as const;
  const conversion = await prepareConversion(source, destination, given, {
    restore: true,
    chosen: chosenBefore(run, options),
  });
  try {
    const found = (await completeStaged(run, conversion)) ? await compareStaged(conversion, task) : NOTHING;
    return {
      plan: run.id,
      task: { index: task.index, count: task.count },
      source: { address: source },
      destination: { path: destination },
      staged: stagingPath(destination),
      ...found,
      seconds: (performance.now() - conversion.started) / 1000,
      peakRssBytes: process.resourceUsage().maxRSS * 1024,
      ...pluginsReport(options),
    };
  } catch (error) {
    if (options.signal?.aborted === true) throw interruptedError(destination);
    throw systemError(error, { file: destination });
  }
}

/** After the destination has appeared. */
const NOTHING = { compared: 0, different: 0, bytesRead: 0 };

/** Longest wait for another such task, which completes the staged files. */
const COMPLETE_MS = 600_000;

/** Writes what the tasks left. @returns false if the destination is there already */
async function completeStaged(
  run: ReadPlan,
  { planned, format, options, watch }: PreparedConversion,
): Promise<boolean> {
  await using tasks = await holdTasks(run, options, COMPLETE_MS);
  if (tasks.count === 0) return false;
  const { overwrite = false, checkpointBytes, directIo } = options;
  const target = { destination: run.destination, container: format.writes.container, overwrite };
  await using staging = await Staging.open({
    ...{ ...target, resume: true, part: "merge", checkpointBytes, isDirect: directIo !== "off" },
    ...{ planId: tasks.mark, totalBytes: bytesWritten(planned) },
  });
  await fillStaging(
    { planned, format, options: { ...options, signal: tasks.signal }, watch, tasks },
    true,
    staging,
  );
  return true;
}

/** Compares the share, and leaves what it finds beside the staged files, if no file of both sides changed meanwhile. */
async function compareStaged(conversion: PreparedConversion, task: Task): Promise<typeof NOTHING> {
  const { destination, format, options, verification, complete } = conversion;
  const { source } = verification!; // `verify` is "bytes"
  const path = contentPath({ destination, container: format.writes.container });
  const written = await loadWritten(path, conversion);
  const mark = await markWritten(conversion, source, written);
  const compare = async () => {
    const found = await compareTask(source, written, task, { ...options, strictScales: true });
    await complete(options.signal);
    for (const { checkpoint } of [source, written]) await checkpoint.store.refuseChanged?.();
    return found;
  };
  const [outcome] = await Promise.allSettled([compare()]);
  const cause = outcome.status === "rejected" ? outcome.reason : undefined;
  if (cause instanceof IsologitError && cause.code === "FILE_CHANGED") throw cause;
  // a change of the files may be the cause of any other error
  if ((await markWritten(conversion, source, written)) !== mark) {
    const message = "source or staged files changed while they were compared";
    throw new IsologitError("STAGING_CHANGED", message, { file: path }, { cause });
  }
  if (outcome.status === "rejected") throw cause;
  const found = outcome.value;
  await writeComparisons(stagingPath(destination), task, mark, found);
  const items = [...found.items.values()];
  const copies = [...found.copies.values()];
  return {
    compared: items.length + copies.length,
    different: items.filter(({ message }) => message !== null).length + copies.filter((at) => at >= 0).length,
    bytesRead: items.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}
