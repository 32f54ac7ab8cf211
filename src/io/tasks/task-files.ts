/** The files of tasks in a staging folder: each task has a journal and a lock of its own. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { IsologitError } from "../../core/errors.ts";
import { stagingPath } from "../destination.ts";
import { type Lock, type LockOptions, lockAt, lockDestination, lockState } from "../lock.ts";
import { BeatWatch } from "../processes/heartbeat.ts";
import { listNames } from "../stamps.ts";

/** One of several processes that run a plan together. */
export interface Task {
  /** 0 to `count` - 1 */
  readonly index: number;
  readonly count: number;
}

const taskName = ({ index, count }: Task): string => `${index}-of-${count}`;
export const taskJournal = (task: Task): string => `journal.${taskName(task)}.ndjson`;
const taskLock = (task: Task): string => `task.${taskName(task)}.lock`;
const compareLock = (task: Task): string => `compare.${taskName(task)}.lock`;

/** What the last step wrote again. */
export const MERGE_JOURNAL = "journal.merge.ndjson";

const OWN_FILE = /^(?:journal|task)\.(\d+)-of-(\d+)\.(?:ndjson|lock)$/;
const LOCK = /^(task|compare)\.\d+-of-\d+\.lock$/;

/** The tasks that have written into a staging folder, or write into it, in order; none without a folder. @throws IO_FAILED */
export async function tasksIn(folder: string): Promise<readonly Task[]> {
  const tasks = new Map<string, Task>();
  for (const name of await listNames(folder)) {
    const [, index, count] = OWN_FILE.exec(name) ?? [];
    if (index === undefined || count === undefined) continue;
    const task = { index: Number(index), count: Number(count) };
    tasks.set(taskName(task), task);
  }
  return [...tasks.values()].sort((a, b) => a.count - b.count || a.index - b.index);
}

/** @throws STAGING_EXISTS if tasks of another division have written into a staging folder */
export function refuseOtherDivision(tasks: readonly Task[], folder: string, count: number): void {
  const other = tasks.find((task) => task.count !== count);
  if (other === undefined) return;
  const message = `the plan was divided into ${other.count} tasks here, and now into ${count}`;
  const next = `use ${other.count} tasks, or remove the folder`;
  throw new IsologitError("STAGING_EXISTS", message, { file: folder }, { next });
}

/** Longest wait for tasks that begin at the same moment: each of them holds the lock of the destination for an instant. */
const BEGIN_MS = 30_000;

/**
 * Locks a destination as soon as no other process holds it.
 *
 * @throws DESTINATION_BUSY after `waitMs`
 */
export async function lockWhenFree(
  destination: string,
  waitMs: number,
  options: LockOptions = {},
): Promise<Lock> {
  const limit = performance.now() + waitMs;
  for (;;) {
    const lock = await lockDestination(destination, options).catch((error) => {
      const isBusy = error instanceof IsologitError && error.code === "DESTINATION_BUSY";
      if (!isBusy || performance.now() > limit) throw error;
      return null;
    });
    if (lock !== null) return lock;
    await sleep(50 + Math.random() * 200);
  }
}

/**
 * Locks a task. While tasks run, no process may hold the lock of the whole destination: it would publish, replace or remove
 * what they write.
 *
 * @throws DESTINATION_BUSY if another process runs this task, or holds the lock of the destination
 */
export async function lockTask(destination: string, task: Task): Promise<Lock> {
  const lock = await lockAt(join(stagingPath(destination), taskLock(task)), { beats: true });
  try {
    const whole = await lockWhenFree(destination, BEGIN_MS);
    await whole[Symbol.asyncDispose]();
    if (await lock.isHeld()) return lock;
    throw new IsologitError("DESTINATION_BUSY", "another process removed its staging folder", {
      file: stagingPath(destination),
    });
  } catch (error) {
    await lock[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Locks tasks, so that none of them can begin or run. The caller holds the lock of the destination.
 *
 * @throws DESTINATION_BUSY if one of them runs
 */
export async function lockTasks(folder: string, tasks: readonly Task[]): Promise<AsyncDisposable> {
  const locks: Lock[] = [];
  const release = async () => {
    for (const lock of locks) await lock[Symbol.asyncDispose]();
  };
  try {
    for (const task of tasks) locks.push(await lockAt(join(folder, taskLock(task)), { beats: true }));
  } catch (error) {
    await release();
    throw error;
  }
  return { [Symbol.asyncDispose]: release };
}

/** Aborted by the caller, or when another process takes a lock over. */
export const whileHeld = ({ lost }: Lock, signal: AbortSignal | undefined): AbortSignal =>
  AbortSignal.any([lost, ...(signal === undefined ? [] : [signal])]);

/** Locks a task that compares. The caller holds the lock of the destination. @throws DESTINATION_BUSY if it runs already */
export async function lockComparing(folder: string, task: Task): Promise<Lock> {
  return await lockAt(join(folder, compareLock(task)), { beats: true });
}

/** Locks of tasks that run, or were killed, in a staging folder. @param part of which tasks; default: of all */
export async function locksOfTasks(folder: string, part?: "task" | "compare"): Promise<readonly string[]> {
  const names = await listNames(folder);
  const wanted = names.filter((name) => {
    const found = LOCK.exec(name)?.[1];
    return found !== undefined && (part ?? found) === found;
  });
  return wanted.map((name) => join(folder, name));
}

/** Refuses a merge while tasks compare. The caller holds the lock of the destination. @throws DESTINATION_BUSY */
export async function refuseComparing(folder: string): Promise<void> {
  for (const path of await locksOfTasks(folder, "compare")) {
    await using _ = await lockAt(path, { beats: true });
  }
}

/** The tasks that compare now, on any host. */
export class ComparingTasks {
  readonly #folder: string;
  readonly #beats = new BeatWatch();

  constructor(folder: string) {
    this.#folder = folder;
  }

  async has(task: Task): Promise<boolean> {
    const path = join(this.#folder, compareLock(task));
    const state = await lockState(path);
    return state === "in use" || (state === "unknown" && (await this.#beats.isBeating(path)));
  }
}

/**
 * Refuses, for a run in one process, the staged files of tasks.
 *
 * @param removes the run would remove the folder
 * @throws STAGING_EXISTS; DESTINATION_BUSY if a task runs
 */
export async function refuseTasks(folder: string, removes: boolean): Promise<void> {
  const tasks = await tasksIn(folder);
  const [first] = tasks;
  if (first === undefined) return;
  if (!removes) {
    const message = `${first.count} tasks write these files, and not one run`;
    const next = "finish with `isologit merge`, or start again with `overwrite`";
    throw new IsologitError("STAGING_EXISTS", message, { file: folder }, { next });
  }
  await using _ = await lockTasks(folder, tasks);
}
