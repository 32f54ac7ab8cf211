/** Submits jobs to Slurm by its own programs, and follows them until they have ended. */
import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { IsologitError } from "../core/errors.ts";

/** The jobs of a conversion. */
interface SlurmJobs {
  /** id of the array that writes */
  readonly tasks: string;
  /** id of the array that compares; null: the merge compares */
  readonly compare: string | null;
  readonly merge: string;
}

/** States of the tasks of both arrays. */
interface TaskStates {
  readonly done: number;
  readonly running: number;
  readonly waiting: number;
  readonly failed: number;
}

interface Followed {
  /** of the scripts */
  readonly folder: string;
  readonly jobs: SlurmJobs;
  /** tasks of an array */
  readonly count: number;
  /** the exit status that the script of a task, or "merge", wrote; null if there is none */
  readonly statusOf: (result: string) => Promise<number | null>;
  readonly pollMs: number;
  readonly signal: AbortSignal | undefined;
  /** called whenever the states have changed */
  readonly watch: (states: TaskStates) => void;
}

/** How the jobs ended. */
export interface Ended {
  /** the first task that failed for good, by the name of its files, with the state that Slurm gives; null: none */
  readonly failed: { readonly result: string; readonly state: string } | null;
  /** state of the merge */
  readonly merge: string;
}

/** States in which a job ends; Slurm may still start a requeued one again, which is then PENDING. */
const FAILED = /^(BOOT_FAIL|CANCELLED|DEADLINE|FAILED|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|REVOKED|TIMEOUT)/;
const RUNNING = /^(RUNNING|COMPLETING|CONFIGURING|SIGNALING|STAGE_OUT|SUSPENDED|STOPPED|RESIZING)/;

/** Polls in which Slurm may forget a job before the job counts as ended: its answers may come late. */
const PATIENCE = 3;

/**
 * Submits the arrays and the merge: each starts after all of the one before has ended well.
 *
 * @param folder of the scripts
 * @param compares there is an array that compares
 * @throws NOT_FOUND without Slurm, IO_FAILED if it refuses a job
 */
export async function submitJobs(folder: string, compares: boolean): Promise<SlurmJobs> {
  const tasks = await submit("tasks.sh", [], folder);
  const submitted = [tasks];
  const submitAfter = async (id: string, script: string) => {
    const next = await submit(script, [`--dependency=afterok:${id}`, "--kill-on-invalid-dep=yes"], folder);
    submitted.push(next);
    return next;
  };
  try {
    const compare = compares ? await submitAfter(tasks, "compare.sh") : null;
    return { tasks, compare, merge: await submitAfter(compare ?? tasks, "merge.sh") };
  } catch (error) {
    await cancel(submitted, folder);
    throw error;
  }
}

async function submit(script: string, options: readonly string[], folder: string): Promise<string> {
  const text = await slurm("sbatch", ["--parsable", ...options, script], folder);
  const [, id] = /^(\d+)(;\S+)?\s*$/.exec(text) ?? [];
  if (id === undefined)
    throw new IsologitError("IO_FAILED", `sbatch answered ${JSON.stringify(text)}, expected a job id`);
  return id;
}

/**
 * Waits until the merge has ended. If a task fails for good, all other jobs are cancelled. If the signal is aborted, all jobs
 * are cancelled.
 *
 * @throws INTERRUPTED; NOT_FOUND, IO_FAILED if Slurm cannot be asked
 */
export async function follow({
  folder,
  jobs,
  count,
  statusOf,
  pollMs,
  signal,
  watch,
}: Followed): Promise<Ended> {
  let told = "";
  let silent = 0;
  const ids = [jobs.tasks, ...(jobs.compare === null ? [] : [jobs.compare]), jobs.merge];
  const results = [
    ...elementsOf(jobs.tasks, "task", count),
    ...(jobs.compare === null ? [] : elementsOf(jobs.compare, "compare", count)),
  ];
  try {
    for (;;) {
      signal?.throwIfAborted();
      const states = await statesOf(ids, folder);
      const tasks = await Promise.all(
        results.map(async ({ job, result }) => {
          const known = states.get(job);
          if (known !== undefined) return known;
          const status = await statusOf(result); // Slurm forgets a job some minutes after its end
          return status === null ? "PENDING" : status === 0 ? "COMPLETED" : "FAILED";
        }),
      );
      const counts: TaskStates = {
        done: tasks.filter((state) => state === "COMPLETED").length,
        running: tasks.filter((state) => RUNNING.test(state)).length,
        failed: tasks.filter((state) => FAILED.test(state)).length,
        waiting: tasks.filter((state) => state !== "COMPLETED" && !RUNNING.test(state) && !FAILED.test(state))
          .length,
      };
      if (JSON.stringify(counts) !== told) watch(counts);
      told = JSON.stringify(counts);
      const index = tasks.findIndex((state) => FAILED.test(state));
      if (index >= 0) {
        await cancel(ids, folder);
        return { failed: { result: results[index]!.result, state: tasks[index]! }, merge: "CANCELLED" };
      }
      const merge = states.get(jobs.merge);
      const status = merge === undefined ? await statusOf("merge") : null;
      if (merge === "COMPLETED" || status === 0) return { failed: null, merge: "COMPLETED" };
      if (merge !== undefined && FAILED.test(merge)) return { failed: null, merge };
      if (status !== null) return { failed: null, merge: "FAILED" };
      silent = merge === undefined ? silent + 1 : 0;
      if (silent > PATIENCE) return { failed: null, merge: "UNKNOWN" };
      await sleep(pollMs, undefined, { signal });
    }
  } catch (error) {
    if (signal?.aborted !== true) throw error;
    await cancel(ids, folder);
    throw signal.reason;
  }
}

/** The jobs of an array, and the names of the files that each of them writes. */
function elementsOf(array: string, name: string, count: number) {
  return Array.from({ length: count }, (_, index) => ({
    job: `${array}_${index}`,
    result: `${name}-${index}`,
  }));
}

async function cancel(ids: readonly string[], folder: string): Promise<void> {
  await slurm("scancel", ids, folder).catch(() => {}); // jobs that have ended cannot be cancelled
}

/** The states that Slurm knows, by job id; a task has the id `ARRAY_INDEX`. */
async function statesOf(ids: readonly string[], folder: string): Promise<ReadonlyMap<string, string>> {
  const states = new Map<string, string>();
  for (const id of ids) {
    const format = ["--noheader", "--array", "--states=all", "--format=%i %T", `--jobs=${id}`];
    // squeue fails for a single job that it does not know any more
    const text = await slurm("squeue", format, folder).catch((error) => {
      if (error instanceof IsologitError && /Invalid job id/i.test(error.message)) return "";
      throw error;
    });
    for (const line of text.split("\n")) {
      const [name, state] = line.trim().split(/\s+/);
      if (name && state) states.set(name, state);
    }
  }
  return states;
}

/** Runs a program of Slurm. @returns what it prints */
async function slurm(name: string, words: readonly string[], cwd: string): Promise<string> {
  const child = spawn(name, words, { cwd, stdio: ["ignore", "pipe", "pipe"] });
  const text = { out: "", err: "" };
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    text.out += part;
  });
  child.stderr.setEncoding("utf8").on("data", (part: string) => {
    text.err += part;
  });
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  }).catch((cause) => {
    if (cause.code !== "ENOENT") throw cause;
    const next = "run the command on a machine that submits jobs to Slurm";
    throw new IsologitError("NOT_FOUND", `there is no ${name} on PATH`, {}, { cause, next });
  });
  if (status === 0) return text.out;
  const why = text.err.trim() || `it ended with status ${status}`;
  const next = "read what Slurm says, then run the command again";
  throw new IsologitError("IO_FAILED", `${name}: ${why}`, {}, { next });
}
