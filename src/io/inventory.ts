/** The files in a staging folder, compared with the planned files. */
import type { BigIntStats } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { entriesBelow, identityOf, stampOf, statIfPresent } from "./stamps.ts";

/** State of each file and folder by path; "" is the topmost folder. The state of a folder ignores its content. */
export type Stamps = ReadonlyMap<string, Stamp>;

export interface Stamp {
  readonly state: string;
  /** bytes; null for a folder */
  readonly size: number | null;
}

export async function stampsBelow(folder: string): Promise<Map<string, Stamp>> {
  const top = await statIfPresent(folder);
  const entries = [...(top === null ? [] : [{ path: "", about: top }]), ...(await entriesBelow(folder))];
  return new Map(entries.map(({ path, about }) => [path, fileStamp(about)]));
}

export function fileStamp(about: BigIntStats): Stamp {
  if (about.isDirectory()) return { state: identityOf(about), size: null };
  return { state: stampOf(about), size: Number(about.size) };
}

/** Paths that appeared, vanished or changed. */
export function pathsThatDiffer(before: Stamps, now: Stamps): readonly string[] {
  const paths = new Set([...before.keys(), ...now.keys()]);
  return [...paths].filter((path) => before.get(path)?.state !== now.get(path)?.state).sort();
}

interface Removed {
  /** paths that are not planned */
  readonly strangers: readonly string[];
  /** planned paths that are links or files with a second name: writing into them would change files elsewhere */
  readonly unusable: readonly string[];
}

/** Removes everything below `folder` except the planned files and the folders above them. */
export async function removeUnplanned(folder: string, planned: ReadonlySet<string>): Promise<Removed> {
  const folders = new Set([...planned].flatMap(foldersAbove));
  const [strangers, unusable]: [string[], string[]] = [[], []];
  for (const { path, about } of await entriesBelow(folder)) {
    if (foldersAbove(path).some((above) => strangers.includes(above) || unusable.includes(above))) continue;
    const isPlanned = planned.has(path);
    const isUsable = about.isDirectory()
      ? folders.has(path)
      : isPlanned && about.isFile() && about.nlink === 1n;
    if (isUsable) continue;
    await rm(join(folder, path), { recursive: true, force: true });
    (isPlanned || folders.has(path) ? unusable : strangers).push(path);
  }
  return { strangers, unusable };
}

function foldersAbove(path: string): readonly string[] {
  const names = path.split("/").slice(0, -1);
  return names.map((_, i) => names.slice(0, i + 1).join("/"));
}
