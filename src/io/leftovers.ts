/** What stopped runs left on the disk: staged files, locks, and files that were not renamed to their final names. */
import type { Dirent } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { systemError } from "../core/errors.ts";
import { MOUNT_STAGING, stagingPath } from "./destination.ts";
import { type LockState, lockState } from "./lock.ts";
import { entriesBelow, listNames } from "./stamps.ts";
import { locksOfTasks, tasksIn } from "./tasks/task-files.ts";

export interface Leftover {
  readonly path: string;
  /** "staged": a folder of staged files; "file": a file that was not complete; "lock": the lock of a destination */
  readonly kind: "staged" | "file" | "lock";
  /** "in use": a process is writing there; "abandoned": the process has ended; "unknown": it may run on another machine */
  readonly state: LockState;
  /** on the disk */
  readonly bytes: number;
  /** finished tensors that the journals of a staging folder name; null for the others */
  readonly tensors: number | null;
  /** number of tasks that a plan was divided into for a staging folder; null for the others, and where one process writes it */
  readonly tasks: number | null;
}

/**
 * Leftovers in a folder, or of one destination and, where it is a folder, in it.
 *
 * @param path undefined: the current folder
 * @returns in the order of their paths
 * @throws NOT_FOUND where neither the path nor the folder above it exists; IO_FAILED
 */
export async function findLeftovers(path?: string): Promise<readonly Leftover[]> {
  const own = path === undefined ? [] : await namesBeside(path);
  const folder = path ?? ".";
  const isFolder = await stat(folder).then(
    (about) => about.isDirectory(),
    () => false,
  );
  const inside = isFolder ? (await entriesOf(folder)).filter(isLeftover).map((entry) => [folder, entry]) : [];
  const found = [...own.map((entry) => [dirname(folder), entry]), ...inside] as [string, Dirent][];
  return await Promise.all(found.map(([above, entry]) => describe(join(above, entry.name), entry)));
}

/** Entries beside a destination that belong to it. */
async function namesBeside(destination: string): Promise<readonly Dirent[]> {
  const staged = basename(stagingPath(destination));
  if (staged === MOUNT_STAGING) return []; // inside the destination
  const belongs = (name: string) => name === staged || name.startsWith(`${staged}.lock`);
  return (await entriesOf(dirname(resolve(destination)))).filter(({ name }) => belongs(name));
}

async function entriesOf(folder: string): Promise<readonly Dirent[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error) => {
    throw systemError(error, { file: folder });
  });
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}

const LOCK = /\.partial\.lock(\.[0-9a-f]+)?$/;
const isLeftover = ({ name }: Dirent): boolean => name.endsWith(".partial") || LOCK.test(name);

/** Of several locks, the first of these counts. */
const STATES: readonly LockState[] = ["in use", "unknown"];

const NO_STAGING = { tensors: null, tasks: null };

async function describe(path: string, entry: Dirent): Promise<Leftover> {
  if (LOCK.test(path)) return { path, kind: "lock", state: await lockState(path), bytes: 0, ...NO_STAGING };
  const locks = [`${path}.lock`, ...(entry.isDirectory() ? await locksOfTasks(path) : [])];
  const states = await Promise.all(locks.map(lockState));
  const state = STATES.find((each) => states.includes(each)) ?? "abandoned";
  if (!entry.isDirectory()) {
    const bytes = await stat(path).then(
      ({ size }) => size,
      () => 0, // removed meanwhile
    );
    return { path, kind: "file", state, bytes, ...NO_STAGING };
  }
  const entries = await entriesBelow(path);
  // a sparse file has its full size from the start, and the disk holds the written part
  const bytes = entries.reduce((sum, { about }) => sum + Number(about.blocks) * 512, 0);
  const [tensors, tasks] = await Promise.all([finishedTensors(path), tasksIn(path)]);
  return { path, kind: "staged", state, bytes, tensors, tasks: tasks[0]?.count ?? null };
}

/** Journals are named `journal….ndjson`; each has one line for the plan and one for each tensor. */
async function finishedTensors(folder: string): Promise<number> {
  const names = (await listNames(folder)).filter((name) => /^journal.*\.ndjson$/.test(name));
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), "utf8").catch(() => "")));
  return texts.reduce((sum, text) => sum + Math.max(0, text.split("\n").length - 2), 0);
}
