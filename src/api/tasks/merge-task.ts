/** `merge --task`: verifies a share of what the tasks of a plan wrote, for the merge. */

import { bytesWritten } from "../../convert/plan-summary.ts";
import { interruptedError } from "../../convert/resume.ts";
import { IsologitError, systemError } from "../../core/errors.ts";
import { contentPath, stagingPath } from "../../io/destination.ts";
import type { Lock } from "../../io/lock.ts";
import { Staging } from "../../io/staging.ts";
import { ComparingTasks, lockComparing, type Task, whileHeld } from "../../io/tasks/task-files.ts";
import { pluginsReport } from "../../plugins/plugin.ts";
import { comparedTasks, readComparisons, writeComparisons } from "../../verify/bytes/comparison-file.ts";
import { compareTask } from "../../verify/compare-task.ts";
import { type LayersRun, runLayerTask } from "../../verify/layer-task.ts";
import type { VerifyLevel } from "../../verify/options.ts";
import { loadWritten, markWritten, type PreparedConversion, prepareConversion } from "../convert.ts";
import { chosenBefore, type ReadPlan, readPlan } from "../planned/plan-file.ts";
import { fillStaging } from "../write-verified.ts";
import { refuseTask, type ShareReport, type TaskOptions } from "./convert-task.ts";
import { holdTasks } from "./merge.ts";

export interface MergeTaskOptions extends TaskOptions {
  /** "logits" (default): the task runs layers of the forward passes too */
  readonly verify?: Exclude<VerifyLevel, "off">;
}

export interface MergeTaskReport extends ShareReport {
  /** number of roles, scales and copies of this share */
  readonly compared: number;
  /** number of those that differ; `merge` judges them */
  readonly different: number;
  /** main layers [from, to) through which this task ran the forward passes, and where; null: none */
  readonly layers: LayersRun | null;
}

/**
 * Compares one share of what the tasks of a plan wrote with the source, byte by byte: neighbouring tensors with about as many
 * bytes as any other share has. Then it runs the forward passes through the layers of its share, as soon as the tasks before it
 * have done so. What was written is opened and loaded anew. The first such task completes the staged files.
 * `merge` then reads only what no task has compared or run, and accepts what a task found only about files that have not changed since.
 *
 * @param planFile path of a file that `plan` wrote
 * @param task its number, from 0, and the number of tasks, which need not be that of `convertTask`
 * @throws TASKS_UNFINISHED if a task of the conversion has not ended; DESTINATION_BUSY if another process runs this task; every
 *   code of `convert`. The staged files stay after every error
 * @example
 * await mergeTask("plan.json", { index: 0, count: 8 });
 */
export async function mergeTask(
  planFile: string,
  task: { readonly index: number; readonly count: number },
  options: MergeTaskOptions = {},
): Promise<MergeTaskReport> {
  refuseTask(task);
  const run = await readPlan(planFile);
  const { source, destination } = run;
  const given = { ...run.options, ...options, planFile };
  const conversion = await prepareConversion(source, destination, given, {
    restore: true,
    chosen: chosenBefore(run, options),
  });
  const { verification } = conversion;
  if (verification === null)
    throw new IsologitError("USAGE", "a task of the merge verifies, and `verify` is off");
  try {
    await using lock = await completeStaged(run, conversion, task);
    const found = lock === null ? NOTHING : await verifyShare({ ...conversion, verification }, task, lock);
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
const NOTHING = { compared: 0, different: 0, bytesRead: 0, layers: null };

/** Longest wait for another such task, which completes the staged files. */
const COMPLETE_MS = 600_000;

/** Writes what the tasks left. @returns the lock of the task that compares; null if the destination is there already */
async function completeStaged(
  run: ReadPlan,
  { planned, format, options, watch }: PreparedConversion,
  task: Task,
): Promise<Lock | null> {
  await using tasks = await holdTasks(run, options, COMPLETE_MS);
  if (tasks.count === 0) return null;
  const { overwrite = false, checkpointBytes, directIo } = options;
  const target = { destination: run.destination, container: format.writes.container, overwrite };
  const lock = await lockComparing(stagingPath(run.destination), task);
  try {
    await using staging = await Staging.open({
      ...{ ...target, resume: true, part: "merge", checkpointBytes, isDirect: directIo !== "off" },
      ...{ planId: tasks.mark, totalBytes: bytesWritten(planned) },
    });
    const signal = whileHeld(lock, tasks.signal);
    await fillStaging({ planned, format, options: { ...options, signal }, watch, tasks }, true, staging);
  } catch (error) {
    await lock[Symbol.asyncDispose]();
    throw error;
  }
  return lock;
}

type VerifiedConversion = PreparedConversion & {
  readonly verification: NonNullable<PreparedConversion["verification"]>;
};

type Share = Pick<MergeTaskReport, "compared" | "different" | "bytesRead" | "layers">;

/** Verifies the share, and leaves what it finds beside the staged files, if no file of both sides changed meanwhile. */
async function verifyShare(conversion: VerifiedConversion, task: Task, lock: Lock): Promise<Share> {
  const { destination, format, complete } = conversion;
  const { source, prepared } = conversion.verification;
  const signal = whileHeld(lock, conversion.options.signal);
  const options = { ...prepared.options, signal };
  const folder = stagingPath(destination);
  const path = contentPath({ destination, container: format.writes.container });
  const written = await loadWritten(path, conversion);
  const mark = await markWritten(conversion, source, written);
  const unchanged = async <T>(work: () => Promise<T>): Promise<T> => {
    const [outcome] = await Promise.allSettled([work()]);
    const cause = outcome.status === "rejected" ? outcome.reason : undefined;
    if (lock.lost.aborted) throw lock.lost.reason;
    if (cause instanceof IsologitError && cause.code === "FILE_CHANGED") throw cause;
    // a change of the files may be the cause of any other error
    if ((await markWritten(conversion, source, written)) !== mark) {
      const message = "source or staged files changed while they were compared";
      throw new IsologitError("STAGING_CHANGED", message, { file: path }, { cause });
    }
    if (outcome.status === "rejected") throw cause;
    return outcome.value;
  };
  const { known } = await readComparisons(folder, mark); // what this task found when it ran before
  const found = await unchanged(async () => {
    const found = await compareTask(source, written, task, { ...options, strictScales: true, known });
    await complete(signal);
    for (const { checkpoint } of [source, written]) await checkpoint.store.refuseChanged?.();
    return found;
  });
  await writeComparisons(folder, task, mark, found ?? { items: new Map(), copies: new Map() });
  if (found === null) return NOTHING;
  const { prompt } = prepared;
  const running = new ComparingTasks(folder);
  const stateOf = async (index: number) => {
    if (await running.has({ index, count: task.count })) return "running";
    const compared = await comparedTasks(folder);
    return compared.some((other) => other.index === index && other.count === task.count) ? "ended" : "absent";
  };
  const layers =
    prompt &&
    (await unchanged(() => runLayerTask(source, written, options, { task, prompt, folder, mark, stateOf })));
  const items = [...found.items.values()];
  const copies = [...found.copies.values()];
  return {
    compared: items.length + copies.length,
    different: items.filter(({ message }) => message !== null).length + copies.filter((at) => at >= 0).length,
    bytesRead: [...found.items].reduce(
      (sum, [key, { bytes }]) => sum + (known.items.has(key) ? 0 : bytes),
      0,
    ),
    layers,
  };
}
