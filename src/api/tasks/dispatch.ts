/** `dispatch`: gives a conversion to the engine of a cluster, as tasks and a merge. The engine schedules. */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { ERRORS, type ErrorCode, IsologitError, systemError } from "../../core/errors.ts";
import { ignoreEvents } from "../../core/events.ts";
import { type Ended, follow, submitJobs } from "../../dispatch/slurm.ts";
import { PLAN_NAME, slurmScripts } from "../../dispatch/slurm-scripts.ts";
import type { SearchOptions } from "../../sensitivity/options.ts";
import type { ConvertReport } from "../convert.ts";
import { plan } from "../plan.ts";
import { MAX_TASKS } from "./convert-task.ts";

export interface SlurmOptions extends SearchOptions {
  /** number of tasks */
  readonly tasks: number;
  /** the words that start this program on a node */
  readonly program: readonly string[];
  /** tasks compare what was written, before the merge; default true */
  readonly compare?: boolean;
  /** further words for tasks that write, for tasks that compare and for `merge` on the nodes */
  readonly taskWords?: readonly string[];
  readonly compareWords?: readonly string[];
  readonly mergeWords?: readonly string[];
  /** options of sbatch for all jobs, without the leading `--` */
  readonly sbatch?: readonly string[];
  /** how often Slurm starts a job again after a fault that may pass; default 3 */
  readonly retries?: number;
  /** folder on the shared disk for the plan, the scripts, the logs and the results; default: `.dispatch` behind the destination */
  readonly workFolder?: string;
  /** write plan and scripts, and submit nothing */
  readonly dryRun?: boolean;
  /** milliseconds between two questions to Slurm; default 5000 */
  readonly pollMs?: number;
}

export interface SlurmReport {
  readonly engine: "slurm";
  /** id of the plan */
  readonly plan: string;
  readonly tasks: number;
  readonly folder: string;
  /** files in `folder` */
  readonly scripts: readonly string[];
  /** ids of the jobs; null if nothing was submitted */
  readonly jobs: { readonly tasks: string; readonly compare: string | null; readonly merge: string } | null;
  /** what `merge` reports; null if nothing was submitted */
  readonly result: ConvertReport | null;
}

const POLL_MS = 5000;

/**
 * Runs a conversion under Slurm and waits for its end: an array of tasks that write, an array of tasks that compare, and the
 * merge. Each depends on the one before.
 *
 * @param source path or `hf://` address of a checkpoint, as every node sees it
 * @param destination path on a disk that every node sees
 * @throws the error of the task or of the merge that failed; NOT_FOUND without Slurm; INTERRUPTED, after the jobs were
 *   cancelled, if the signal is aborted
 * @example
 * await dispatchSlurm("/models/56b", "/models/56b-fp8", { to: "hf", dtype: "fp8-e4m3", tasks: 16, program: ["isologit"] });
 */
export async function dispatchSlurm(
  source: string,
  destination: string,
  options: SlurmOptions,
): Promise<SlurmReport> {
  const { tasks, program, sbatch = [], retries = 3, signal } = options;
  const { taskWords = [], compareWords = [], mergeWords = [] } = options;
  const { watch = ignoreEvents, dryRun = false, pollMs = POLL_MS, compare: compares = true } = options;
  if (!Number.isInteger(tasks) || tasks < 1 || tasks > MAX_TASKS)
    throw new IsologitError("USAGE", `\`tasks\` is ${tasks}, expected 1 to ${MAX_TASKS}`);
  const folder = resolve(options.workFolder ?? `${destination.replace(/\/+$/, "")}.dispatch`);
  const name = `isologit-${basename(resolve(destination)).replaceAll(/[^\w.-]/g, "_")}`;
  try {
    await mkdir(folder, { recursive: true });
    const planned = await plan(source, destination, { ...options, out: join(folder, PLAN_NAME) });
    const words = { program, taskWords, compareWords, mergeWords, sbatch };
    const scripts = slurmScripts({ folder, name, tasks, compares, ...words, retries });
    for (const [file, text] of scripts) await writeFile(join(folder, file), text, { mode: 0o755 });
    const head = { engine: "slurm", plan: planned.id, tasks, folder, scripts: [...scripts.keys()] } as const;
    if (dryRun) return { ...head, jobs: null, result: null };
    signal?.throwIfAborted();
    await forgetResults(folder, tasks);
    const jobs = await submitJobs(folder, compares);
    const { compare, merge } = jobs;
    watch({ type: "submitted", jobs: [jobs.tasks, ...(compare === null ? [] : [compare]), merge] });
    const ended = await follow({
      ...{ folder, jobs, count: tasks, pollMs, signal },
      statusOf: (result) => statusAt(join(folder, `${result}.status`)),
      watch: (states) => watch({ type: "tasks", ...states }),
    });
    return { ...head, jobs, result: await resultOf(folder, ended) };
  } catch (error) {
    throw systemError(error, { file: folder });
  }
}

const Printed = z.object({
  error: z.object({
    code: z.enum(Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]]), // the table has these keys and no others
    message: z.string(),
    at: z.object({
      file: z.string().exactOptional(),
      tensor: z.string().exactOptional(),
      offset: z.number().exactOptional(),
      index: z.number().exactOptional(),
    }),
    next: z.string(),
  }),
});

/** Removes what an earlier dispatch of this destination left. */
async function forgetResults(folder: string, tasks: number): Promise<void> {
  const indices = Array.from({ length: tasks }, (_, index) => index);
  for (const result of ["merge", ...indices.flatMap((index) => [`task-${index}`, `compare-${index}`])]) {
    for (const ending of ["status", "json"]) await rm(join(folder, `${result}.${ending}`), { force: true });
  }
}

async function statusAt(file: string): Promise<number | null> {
  const text = await readFile(file, "utf8").catch(() => "");
  return /^\d+\n$/.test(text) ? Number(text) : null;
}

/** The report of the merge. @throws the error that a job printed */
async function resultOf(folder: string, { failed, merge }: Ended): Promise<ConvertReport> {
  const { result, state } = failed ?? { result: "merge", state: merge };
  const file = join(folder, `${result}.json`);
  const printed: unknown = await readFile(file, "utf8")
    .then(JSON.parse)
    .catch(() => null);
  const error = errorIn(printed);
  if (error !== null) {
    const { code, message, at, next } = error;
    throw new IsologitError(code, `${result.replace("-", " ")}: ${message}`, at, { next });
  }
  // the job of a verdict that proves nothing has failed too, and has a report
  if (failed === null && printed !== null) return printed as ConvertReport; // `merge --json` printed it
  const log = join(folder, `${result}.log`);
  const next = "read the log, then dispatch again: what was written is kept";
  throw new IsologitError(
    "IO_FAILED",
    `${result.replace("-", " ")} ended as ${state}, without a report`,
    { file: log },
    { next },
  );
}

/** The error that a command printed with `--json`. */
function errorIn(printed: unknown): z.infer<typeof Printed>["error"] | null {
  return Printed.safeParse(printed).data?.error ?? null;
}
