/** What the file system tells of a path without its bytes: whether it is there, and which state of a file it is. */
import type { BigIntStats } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { systemError } from "../core/errors.ts";

/** Links are not followed: one that leads nowhere is there too. */
export async function exists(path: string): Promise<boolean> {
  return (await statIfPresent(path)) !== null;
}

/** @returns null where nothing is */
export async function statIfPresent(path: string): Promise<BigIntStats | null> {
  return lstat(path, { bigint: true }).catch((error) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
    throw systemError(error, { file: path });
  });
}

/** Which file or folder it is, whatever it is called. Numbers of files are used again, so its birth is told too. */
export function identityOf({ dev, ino, birthtimeNs }: BigIntStats): string {
  return `${dev} ${ino} ${birthtimeNs}`;
}

/** Which state of that file: every write, and whatever hides a write, changes it. */
export function stampOf(about: BigIntStats): string {
  return `${identityOf(about)} ${about.size} ${about.mtimeNs} ${about.ctimeNs}`;
}

/** Something below a folder. */
export interface Entry {
  /** relative, with `/` between names */
  readonly path: string;
  readonly about: BigIntStats;
}

/** Everything below a folder, folders before what they hold; links are not followed. */
export async function entriesBelow(folder: string, prefix = ""): Promise<readonly Entry[]> {
  const found: Entry[] = [];
  const names = await readdir(join(folder, prefix)).catch((error) => {
    if (error.code === "ENOENT") return []; // gone since it was listed
    throw systemError(error, { file: join(folder, prefix) });
  });
  for (const name of names.sort()) {
    const path = prefix + name;
    const about = await statIfPresent(join(folder, path));
    if (about === null) continue; // gone since it was listed
    found.push({ path, about });
    if (about.isDirectory()) found.push(...(await entriesBelow(folder, `${path}/`)));
  }
  return found;
}
