/** The file system, failing on request: each call of Node's promises API is counted, and one of them goes wrong. */
import fs, { type FileHandle } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

type Call = (...args: unknown[]) => Promise<unknown>;
type Table = Record<string, Call>;

/** Stands in for `real` on every call of this name; `again` makes the real call with these arguments, `file` is an open file. */
export type Instead = (
  name: string,
  again: (...args: unknown[]) => Promise<unknown>,
  args: unknown[],
  file: unknown,
) => Promise<unknown>;

const CALLS = [
  "open",
  "stat",
  "lstat",
  "readdir",
  "readFile",
  "readlink",
  "realpath",
  "mkdir",
  "statfs",
  "symlink",
  "unlink",
  "writeFile",
  "link",
  "rename",
  "rm",
  "rmdir",
] as const;
const HANDLE_CALLS = ["read", "write", "appendFile", "truncate", "datasync", "sync"] as const;

export const EVERY = [...CALLS, ...HANDLE_CALLS];
/** Those that change what is on the disk, or may. */
export const CHANGES = EVERY.filter(
  (name) =>
    !["stat", "lstat", "readdir", "readFile", "readlink", "realpath", "statfs", "read"].includes(name),
);

/** Runs `work` while `instead` has each file system call in its hands. */
export async function intercepted<T>(
  instead: Instead,
  work: () => Promise<T>,
): Promise<PromiseSettledResult<T>> {
  const probe = await fs.open(process.execPath);
  const handles: FileHandle = Object.getPrototypeOf(probe);
  await probe.close();
  const patch = (table: Table, name: string) => {
    const real = table[name]!;
    table[name] = function (this: unknown, ...args: unknown[]) {
      return instead(name, (...given) => real.apply(this, given), args, this);
    };
    return () => {
      table[name] = real;
    };
  };
  // Both are tables of functions that give promises, as far as the names above go.
  const undo = [
    ...CALLS.map((name) => patch(fs as unknown as Table, name)),
    ...HANDLE_CALLS.map((name) => patch(handles as unknown as Table, name)),
  ];
  syncBuiltinESMExports(); // for modules that import the functions by name
  try {
    return (await Promise.allSettled([work()]))[0]!;
  } finally {
    for (const restore of undo) restore();
    syncBuiltinESMExports();
  }
}

/** How often `work` makes each call. */
export async function counted(work: () => Promise<unknown>): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>();
  const outcome = await intercepted((name, again, args) => {
    counts.set(name, (counts.get(name) ?? 0) + 1);
    return again(...args);
  }, work);
  if (outcome.status === "rejected") throw outcome.reason;
  return counts;
}

/** Runs `work` with the n-th call of one name failing. */
export async function withFault<T>(call: string, n: number, code: string, work: () => Promise<T>) {
  let count = 0;
  return await intercepted(async (name, again, args) => {
    if (name !== call || ++count !== n) return again(...args);
    throw plantedError(name, code);
  }, work);
}

/** Runs `work` with every call of these names failing. */
export async function withoutCalls<T>(calls: readonly string[], code: string, work: () => Promise<T>) {
  return await intercepted(async (name, again, args) => {
    if (!calls.includes(name)) return again(...args);
    throw plantedError(name, code);
  }, work);
}

export const plantedError = (name: string, code: string): Error =>
  Object.assign(new Error(`${code}: planted in ${name}`), { code, syscall: name });
