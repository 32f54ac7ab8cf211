/** Completes, once, the staged files that tasks wrote: several processes may then read them as a checkpoint. */
import { readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { IsologitError, systemError } from "../../core/errors.ts";
import { canonicalJson, sha256 } from "../../core/hash.ts";
import { fileStore } from "../../io/file.ts";
import type { Staging } from "../../io/staging.ts";
import { pathExists } from "../../io/stamps.ts";
import type { OutsideSpan } from "../outside-elements.ts";
import { bytesRead, bytesWritten } from "../plan-summary.ts";
import { type CompletedRun, runPlan } from "../run.ts";
import type { ConversionRun, Plan } from "../types.ts";
import { unfinishedTasks } from "./shares.ts";

/** The tasks of a plan. */
export interface DividedPlan {
  /** number of tasks */
  readonly count: number;
  /** what their journals begin with */
  readonly mark: string;
}

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.int().nonnegative();
const Span = z.strictObject({ file: z.string(), offset: count, size: count, sha256: digest });
/** `complete.json`: the state of the staged files when they were complete, and their bytes apart from the model's elements. */
const Complete = z.strictObject({
  mark: digest,
  stamps: z.record(z.string(), z.string()),
  outside: z.array(Span).readonly(),
  sha256: digest,
});

/** No plan has so many files that this file is larger. */
const MAX_BYTES = 256 * 1024 * 1024;

/**
 * Writes headers, side files, indexes and seals beside the tensors of the tasks, unless an earlier process has, and no file
 * has changed since. The caller holds the locks of the destination and of all tasks.
 *
 * @throws TASKS_UNFINISHED; the errors of `runPlan`
 */
export async function completeTasks(running: ConversionRun, divided: DividedPlan): Promise<CompletedRun> {
  const { plan, staging } = running;
  refuseUnfinished(plan, divided.count, staging);
  // Without a verification, each tensor is read and compared with the journals.
  const outside = running.alone ? null : await readOutside(staging, divided.mark);
  if (outside !== null) return { outside, kept: { read: bytesRead(plan), written: bytesWritten(plan) } };
  const run = await runPlan(running);
  await writeOutside(staging, divided.mark, run.outside);
  return run;
}

const pathIn = ({ folder }: Staging): string => join(folder, "complete.json");

async function readOutside(staging: Staging, mark: string): Promise<readonly OutsideSpan[] | null> {
  const file = pathIn(staging);
  try {
    if (!(await pathExists(file)) || (await stat(file)).size > MAX_BYTES) return null;
    const { data } = Complete.safeParse(JSON.parse(await readFile(file, "utf8")));
    if (data === undefined) return null;
    const { sha256: written, ...rest } = data;
    if (rest.mark !== mark || written !== digestOf(rest)) return null;
    return canonicalJson(rest.stamps) === canonicalJson(await stampsOf(staging)) ? rest.outside : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null; // a crash cut it short
    throw systemError(error, { file });
  }
}

async function writeOutside(staging: Staging, mark: string, outside: readonly OutsideSpan[]): Promise<void> {
  const file = pathIn(staging);
  const complete = { mark, stamps: await stampsOf(staging), outside };
  try {
    await writeFile(`${file}.new`, JSON.stringify({ ...complete, sha256: digestOf(complete) }));
    await rename(`${file}.new`, file);
  } catch (error) {
    throw systemError(error, { file });
  }
}

const digestOf = (complete: unknown): string => sha256(canonicalJson(complete));

/** The state of the staged files, as each machine sees it. */
async function stampsOf({ content }: Staging): Promise<Readonly<Record<string, string>>> {
  return (await (await fileStore(content)).stamps?.()) ?? {};
}

/** @throws TASKS_UNFINISHED */
function refuseUnfinished(plan: Plan, count: number, { finished, folder }: Staging): void {
  const unfinished = unfinishedTasks(plan, count, finished);
  if (unfinished.length === 0) return;
  const listed = unfinished
    .slice(0, FEW_TASKS)
    .map(
      ({ task, missing, tensors }) => `${task.index}/${count} (${missing} of ${tensors} tensors are missing)`,
    );
  const more = unfinished.length > FEW_TASKS ? `, and ${unfinished.length - FEW_TASKS} more` : "";
  throw new IsologitError("TASKS_UNFINISHED", `tasks have not ended: ${listed.join(", ")}${more}`, {
    file: folder,
  });
}

/** Tasks that a message names. */
const FEW_TASKS = 16;
