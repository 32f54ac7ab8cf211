/** What the file system reports about a path without opening the file: whether it exists, its size and its times. */
import type { BigIntStats } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { systemError } from "../core/errors.ts";

/** Links are not followed: a link without a target exists too. */
export async function pathExists(path: string): Promise<boolean> {
  return (await statIfPresent(path)) !== null;
}

/** @returns null if the path does not exist */
export async function statIfPresent(path: string): Promise<BigIntStats | null> {
  return lstat(path, { bigint: true }).catch((error) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
    throw systemError(error, { file: path });
  });
}

/** Identity of a file or folder, whatever its name. Inode numbers are reused, so the time of creation belongs to it. */
export function identityOf({ dev, ino, birthtimeNs }: BigIntStats): string {
  return `${dev} ${ino} ${birthtimeNs}`;
}

/** State of a file. Every write changes it, even if the modification time is set back. */
export function stampOf(about: BigIntStats): string {
  return `${identityOf(about)} ${about.size} ${about.mtimeNs} ${about.ctimeNs}`;
}

/** Names in a folder, sorted; none if there is no folder. @throws IO_FAILED */
export async function listNames(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder).catch((error) => {
    if (error.code === "ENOENT") return [];
    throw systemError(error, { file: folder });
  });
  return names.sort();
}

/** A file, folder or link below a folder. */
export interface Entry {
  /** relative, with `/` between names */
  readonly path: string;
  readonly about: BigIntStats;
}

/** Everything below a folder, each folder before its content; links are not followed. */
export async function entriesBelow(folder: string, prefix = ""): Promise<readonly Entry[]> {
  const found: Entry[] = [];
  for (const name of await listNames(join(folder, prefix))) {
    const path = prefix + name;
    const about = await statIfPresent(join(folder, path));
    if (about === null) continue; // removed since it was listed
    found.push({ path, about });
    if (about.isDirectory()) found.push(...(await entriesBelow(folder, `${path}/`)));
  }
  return found;
}
