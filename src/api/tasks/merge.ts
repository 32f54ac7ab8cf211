/** `merge`: makes the destination of what the tasks of a plan wrote, after it is verified. */

import { divisionMark } from "../../convert/tasks/source-stamps.ts";
import { IsologitError } from "../../core/errors.ts";
import type { StrictOptions } from "../../core/finding.ts";
import type { PromptOptions } from "../../inference/prompts.ts";
import { stagingPath } from "../../io/destination.ts";
import { lockDestination } from "../../io/lock.ts";
import { pathExists } from "../../io/stamps.ts";
import { lockTasks, refuseOtherDivision, tasksIn } from "../../io/tasks.ts";
import type { SignOptions } from "../../signing/options.ts";
import type { LimitOptions } from "../../verify/limits.ts";
import type { ReferenceOptions, VerifyLevel } from "../../verify/options.ts";
import { type ConvertReport, convert, convertMerged } from "../convert.ts";
import { readPlan } from "../plan-file.ts";
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
  const { source, destination, options: planned } = await readPlan(planFile);
  return await convert(source, destination, { ...planned, ...options, planFile });
}

/**
 * Completes a conversion whose tasks have all ended: writes side files, indexes and seals, verifies, certifies, and lets the
 * destination appear. Its bytes are those that one process writes. Run again, it continues; after the destination has
 * appeared, it verifies the destination.
 *
 * @param planFile path of a file that `plan` wrote
 * @returns the report of `convert`
 * @throws TASKS_UNFINISHED, naming the tasks, if one has not written its share; DESTINATION_BUSY if one runs; every code of
 *   `convert`. The staged files stay after every error
 * @example
 * const { verification } = await merge("plan.json");
 */
export async function merge(planFile: string, options: PlannedOptions = {}): Promise<ConvertReport> {
  const run = await readPlan(planFile);
  const folder = stagingPath(run.destination);
  await using lock = await lockDestination(run.destination, { beats: true });
  const tasks = await tasksIn(folder);
  const count = tasks[0]?.count ?? 0;
  refuseOtherDivision(tasks, folder, count);
  if (count === 0 && (await isWanted(run.destination, folder, options))) {
    const next = "run the tasks: `isologit convert --plan FILE --task I/N`";
    throw new IsologitError("TASKS_UNFINISHED", "no task has begun", { file: folder }, { next });
  }
  await using _ = await lockTasks(
    folder,
    Array.from({ length: count }, (_, index) => ({ index, count })),
  );
  const signal = AbortSignal.any([lock.lost, ...(options.signal === undefined ? [] : [options.signal])]);
  return await convertMerged(
    run.source,
    run.destination,
    { ...run.options, ...options, planFile, signal, resume: true },
    { lock, count, mark: divisionMark(run.id, run.stamps) },
  );
}

/** Without tasks, only a destination that an earlier merge finished needs no work. */
async function isWanted(
  destination: string,
  folder: string,
  { overwrite }: PlannedOptions,
): Promise<boolean> {
  if (overwrite === true || !(await pathExists(destination))) return true;
  return await pathExists(folder);
}
