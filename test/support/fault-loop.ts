/** The n-th call of the file system fails, for each n until none does. */
import { existsSync, lstatSync, readFileSync, rmSync, statSync } from "node:fs";
import { expect } from "vitest";
import { IsologitError } from "../../src/core/errors.ts";
import { sha256 } from "../../src/core/hash.ts";
import { findLeftovers } from "../../src/io/leftovers.ts";
import { counted, withFault } from "./faulty-io.ts";
import { filesOf } from "./goldens.ts";

/** Every file at an address, folder or file; empty where nothing is. */
export function bytesAt(path: string): ReadonlyMap<string, string> {
  if (!existsSync(path)) return new Map();
  if (statSync(path).isDirectory()) return filesOf(path);
  return new Map([["", sha256(readFileSync(path))]]);
}

/** What a run may leave: the destination, its staged folder, its lock. */
export function removeAll(path: string): void {
  for (const each of [path, `${path}.partial`, `${path}.partial.lock`])
    rmSync(each, { recursive: true, force: true });
}

/** What each error of the system is told as; both codes have exit status 4. */
const CODES: Readonly<Record<string, string>> = {
  EIO: "IO_FAILED",
  EACCES: "IO_FAILED",
  EPERM: "IO_FAILED",
  EROFS: "IO_FAILED",
  ENOSPC: "DISK_FULL",
  EDQUOT: "DISK_FULL",
};

/** What a stopped run leaves beside a destination is what `doctor` names. */
export async function expectNamed(path: string, told: string): Promise<void> {
  const left = [`${path}.partial`, `${path}.partial.lock`].filter(isThere);
  expect((await findLeftovers(path)).map((leftover) => leftover.path).sort(), told).toEqual(left);
}

/** A lock is a link without a target. */
const isThere = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false }) !== undefined;

/** After a failure of one of these, a lock that could not be read or removed may stay until the next run. */
const OF_LOCKS = ["lstat", "readlink", "unlink"];

export interface Written {
  /** what the run writes */
  readonly path: string;
  readonly run: () => Promise<unknown>;
  /** completes what a failed run left; default: the run, again */
  readonly mend?: () => Promise<unknown>;
  /** before each run */
  readonly prepare?: () => void | Promise<void>;
  /** after a run that ended well, and after `mend`: the runs that are needed until the files are there */
  readonly finish?: () => Promise<unknown>;
  /** removes what a run wrote; default: destination, staged folder and lock */
  readonly remove?: () => void;
}

/**
 * Each call fails once, each in a run of its own. A run ends well, or with an error of exit status 4; the destination is as
 * it was or as it shall be; and a run afterwards gives the right bytes.
 *
 * @param step not each call but every so many, and the first of each name
 * @returns the number of calls that failed
 */
export async function failEach(
  { path, run, mend = run, finish, prepare = () => {}, remove = () => removeAll(path) }: Written,
  calls: readonly string[],
  code: string,
  step = 1,
): Promise<number> {
  await prepare();
  const counts = await counted(run);
  await finish?.();
  const right = bytesAt(path);
  expect(right.size).toBeGreaterThan(0);
  let failed = 0;
  for (const call of calls) {
    for (let n = 1; n <= (counts.get(call) ?? 0); n += step) {
      remove();
      await prepare();
      const before = bytesAt(path);
      const told = `${call} ${n}: ${code}`;
      const outcome = await withFault(call, n, code, run);
      failed++;
      if (outcome.status === "rejected") {
        expect(outcome.reason, told).toBeInstanceOf(IsologitError);
        expect(outcome.reason.code, `${told}: ${outcome.reason.message}`).toBe(CODES[code]);
        expect(outcome.reason.at.file, told).toBeTruthy();
        expect([before, right], told).toContainEqual(bytesAt(path));
        await expectNamed(path, told);
        await mend();
      }
      await finish?.();
      if (outcome.status === "fulfilled" && existsSync(`${path}.partial`)) {
        expect(bytesAt(path), told).toEqual(right); // only the rest of the staging folder could not be removed
        await mend();
      }
      expect(bytesAt(path), told).toEqual(right);
      expect(existsSync(`${path}.partial`), told).toBe(false);
      if (!OF_LOCKS.includes(call)) expect(isThere(`${path}.partial.lock`), told).toBe(false);
    }
  }
  remove();
  return failed;
}
