/** What lies in a staged folder, against what was planned to lie there. */
import type { BigIntStats } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { entriesBelow, identityOf, stampOf, statIfPresent } from "./stamps.ts";

/** By path: the state of each file, and its bytes; of a folder which one it is, whatever it holds. "" is the topmost. */
export type Stamps = ReadonlyMap<string, Stamp>;

export interface Stamp {
  readonly state: string;
  /** null of a folder */
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

/** Paths that came, went or changed. */
export function pathsThatDiffer(before: Stamps, now: Stamps): readonly string[] {
  const paths = new Set([...before.keys(), ...now.keys()]);
  return [...paths].filter((path) => before.get(path)?.state !== now.get(path)?.state).sort();
}

interface Removed {
  /** nobody planned them */
  readonly strangers: readonly string[];
  /** planned, but no plain file of this folder alone: to write into it would write elsewhere */
  readonly unusable: readonly string[];
}

/** Removes everything below `folder` but the planned files and the folders that hold them. */
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
