/** `merge`: makes the destination of what the tasks of a plan wrote, after it is verified. */

import { divisionMark } from "../../convert/tasks/source-stamps.ts";
import { IsologitError } from "../../core/errors.ts";
import type { StrictOptions } from "../../core/finding.ts";
import type { PromptOptions } from "../../inference/prompts.ts";
import { isInPlace, stagingPath } from "../../io/destination.ts";
import {
  lockTasks,
  lockWhenFree,
  refuseComparing,
  refuseOtherDivision,
  tasksIn,
  whileHeld,
} from "../../io/tasks/task-files.ts";
import type { SignOptions } from "../../signing/options.ts";
import { comparedTasks } from "../../verify/bytes/comparison-file.ts";
import type { LimitOptions } from "../../verify/limits.ts";
import type { ReferenceOptions, VerifyLevel } from "../../verify/options.ts";
import { type ConvertReport, convertPlanned, type MergedTasks } from "../convert.ts";
import { chosenBefore, type ReadPlan, readPlan } from "../planned/plan-file.ts";
import type { WriteOptions } from "../write-verified.ts";

/** Options of `convert` that do not decide what is written. */
export interface PlannedOptions
  extends Omit<WriteOptions, "resume">,
    PromptOptions,
    LimitOptions,
    ReferenceOptions,
    StrictOptions,
    SignOptions {
  /** comparisons that run before the destination is published; default "logits" */
  readonly verify?: VerifyLevel;
}

export interface MergeOptions extends PlannedOptions {
  /** number of tasks that compare: unless each of them has ended, the merge does not begin; default: it accepts what it finds */
  readonly tasks?: number;
}

/**
 * Converts as a plan file says, in this process.
 *
 * @param planFile path of a file that `plan` wrote
 * @throws PLAN_CHANGED if source or plan are not those of the file; every code of `convert`
 * @example
 * await convertPlan("plan.json");
 */
export async function convertPlan(
  planFile: string,
  options: PlannedOptions & { readonly resume?: boolean } = {},
): Promise<ConvertReport> {
  const run = await readPlan(planFile);
  const given = { ...run.options, ...options, planFile };
  return await convertPlanned(run.source, run.destination, given, { chosen: chosenBefore(run, options) });
}

/**
 * Completes a conversion whose tasks have all ended: writes side files, indexes and seals, verifies, certifies, and lets the
 * destination appear. Its bytes are those that one process writes. Run again, it continues; after the destination has
 * appeared, it verifies the destination.
 *
 * @param planFile path of a file that `plan` wrote
 * @returns the report of `convert`
 * @throws TASKS_UNFINISHED, naming the tasks, if one has not ended; DESTINATION_BUSY if one runs; every code of
 *   `convert`. The staged files stay after every error
 * @example
 * const { verification } = await merge("plan.json");
 */
export async function merge(
  planFile: string,
  { tasks: compared, ...options }: MergeOptions = {},
): Promise<ConvertReport> {
  if (compared !== undefined && options.verify === "off")
    throw new IsologitError("USAGE", "`tasks` compare what was written, and `verify` is off");
  const run = await readPlan(planFile);
  await using tasks = await holdTasks(run, options, 0);
  const folder = stagingPath(run.destination);
  await refuseComparing(folder);
  if (compared !== undefined && tasks.count > 0) await refuseUncompared(folder, compared);
  const { signal } = tasks;
  const given = { ...run.options, ...options, planFile, signal, resume: true };
  return await convertPlanned(run.source, run.destination, given, {
    chosen: chosenBefore(run, options),
    tasks,
  });
}

/** Tasks that cannot run while they are held. */
interface HeldTasks extends MergedTasks, AsyncDisposable {
  /** aborted by the caller, or when another process takes the lock of the destination over */
  readonly signal: AbortSignal;
}

/**
 * Holds the locks of a destination and of all tasks that write into its staging folder. Their number is 0 if the destination
 * is there already.
 *
 * @param waitMs wait so long for the lock of the destination
 * @throws TASKS_UNFINISHED if no task has begun; STAGING_EXISTS, DESTINATION_BUSY
 */
export async function holdTasks(
  { id, stamps, destination }: ReadPlan,
  options: Pick<PlannedOptions, "overwrite" | "signal">,
  waitMs: number,
): Promise<HeldTasks> {
  const folder = stagingPath(destination);
  const lock = await lockWhenFree(destination, waitMs, { beats: true });
  try {
    const tasks = await tasksIn(folder);
    const count = tasks[0]?.count ?? 0;
    refuseOtherDivision(tasks, folder, count);
    const isDone = await isInPlace({ destination, overwrite: options.overwrite ?? false });
    if (count === 0 && !isDone) {
      const ended =
        options.overwrite === true ? "; if a merge has ended already, leave `overwrite` away" : "";
      const next = `run the tasks: \`isologit convert --plan FILE --task I/N\`${ended}`;
      throw new IsologitError("TASKS_UNFINISHED", "no task has begun", { file: folder }, { next });
    }
    const held = await lockTasks(
      folder,
      Array.from({ length: count }, (_, index) => ({ index, count })),
    );
    return {
      ...{ lock, count: isDone ? 0 : count, mark: divisionMark(id, stamps) },
      signal: whileHeld(lock, options.signal),
      async [Symbol.asyncDispose]() {
        await held[Symbol.asyncDispose]();
        await lock[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await lock[Symbol.asyncDispose]();
    throw error;
  }
}

/** @throws TASKS_UNFINISHED */
async function refuseUncompared(folder: string, count: number): Promise<void> {
  const tasks = (await comparedTasks(folder)).filter((task) => task.count === count);
  const ended = new Set(tasks.map(({ index }) => index));
  const left = Array.from({ length: count }, (_, index) => index).filter((index) => !ended.has(index));
  if (left.length === 0) return;
  const listed = left.slice(0, FEW_TASKS).map((index) => `${index}/${count}`);
  const more = left.length > FEW_TASKS ? `, and ${left.length - FEW_TASKS} more` : "";
  const message = `tasks have not compared their share: ${listed.join(", ")}${more}`;
  const next = "run them: `isologit merge FILE --task I/N`";
  throw new IsologitError("TASKS_UNFINISHED", message, { file: folder }, { next });
}

/** Tasks that a message names. */
const FEW_TASKS = 16;
