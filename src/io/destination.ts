/**
 * A destination, the folder in which it is staged beside it, and the one step by which it appears. All of this is
 * for the holder of the destination's lock.
 */
import type { BigIntStats } from "node:fs";
import { link, mkdir, open, readdir, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { fileStamp, pathsThatDiffer, type Stamps, stampsBelow } from "./inventory.ts";
import { isMountPoint } from "./mount.ts";
import { exists, identityOf, statIfPresent } from "./stamps.ts";

export interface Destination {
  readonly destination: string;
  readonly container: "folder" | "file";
  readonly overwrite: boolean;
}

/** What will be the destination, or the folder that holds it. */
export const DATA = "data";
/** the old destination, until the new one has its place */
const REPLACED = "replaced";
export const JOURNAL = "journal.ndjson";
/** an empty file: nothing but renames remains to be done */
const VERIFIED = "verified";
/** an empty file: a mount point holds nothing any more of what it held before */
const CLEARED = "cleared";

/** In a folder that is a mount point: nothing beside it is on its disk, and it cannot be renamed itself. */
const INSIDE = ".isologit.partial";

/** `DST.partial`; of a mount point a folder inside it. */
export function stagingPath(destination: string): string {
  const path = resolve(destination);
  return isMountPoint(path) ? join(path, INSIDE) : `${path}.partial`;
}

export function contentPath({ destination, container }: Omit<Destination, "overwrite">): string {
  const data = join(stagingPath(destination), DATA);
  return container === "folder" ? data : join(data, basename(resolve(destination)));
}

/**
 * @returns what will be replaced; null where nothing is
 * @throws DESTINATION_EXISTS unless it may be overwritten, or is a folder that holds nothing, for a folder
 */
export async function refuseExisting(target: Destination): Promise<BigIntStats | null> {
  const { destination, overwrite } = target;
  const found = await statIfPresent(destination);
  if (found === null || overwrite || (await isVacant(target))) return found;
  throw new IsologitError("DESTINATION_EXISTS", "the destination exists already", { file: destination });
}

/**
 * A destination as it is found, all that lies in it included: a folder's own time tells nothing of what is written
 * further down. What this program stages in it is no part.
 *
 * @returns null where nothing is
 */
export async function stampsAt(destination: string): Promise<Stamps | null> {
  const found = await statIfPresent(destination);
  if (found === null) return null;
  if (!found.isDirectory()) return new Map([["", fileStamp(found)]]);
  const stamps = await stampsBelow(resolve(destination));
  return new Map([...stamps].filter(([path]) => !path.startsWith(INSIDE)));
}

/** Is it a folder that holds nothing but what this program stages there, for a checkpoint that is a folder? */
async function isVacant({ destination, container }: Omit<Destination, "overwrite">): Promise<boolean> {
  if (container !== "folder") return false;
  return (
    (await namesIn(destination)).length === 0 && ((await statIfPresent(destination))?.isDirectory() ?? false)
  );
}

/** What a folder holds, but for what this program stages in it. A link to a folder is no folder. */
async function namesIn(folder: string): Promise<readonly string[]> {
  if (!((await statIfPresent(folder))?.isDirectory() ?? false)) return [];
  return (await readdir(folder)).filter((name) => !name.startsWith(INSIDE)).sort();
}

/**
 * A run leaves folders and a journal of its own. Through a link in their place, or a second name, a resume would write
 * into what lies elsewhere, and take it away.
 *
 * @throws STAGING_EXISTS
 */
export async function refuseForeignStaging(folder: string): Promise<void> {
  const folders = [folder, join(folder, DATA)];
  for (const path of [...folders, join(folder, JOURNAL)]) {
    const found = await statIfPresent(path);
    if (found === null) continue;
    const isOwn = folders.includes(path) ? found.isDirectory() : found.isFile() && found.nlink === 1n;
    if (isOwn) continue;
    const message = "no earlier run left this: it is a link, or of another kind";
    const next = "move it away, or start again with `overwrite`";
    throw new IsologitError("STAGING_EXISTS", message, { file: path }, { next });
  }
}

/**
 * Whether an earlier run got as far as the destination; what a crash left beside it after that is taken away. With
 * nothing beside it, a destination that may be overwritten may also be the one to overwrite.
 *
 * @throws STAGING_EXISTS where what lies beside it is no run's
 */
export async function isFinished(target: Destination): Promise<boolean> {
  const destination = await statIfPresent(target.destination);
  if (destination === null) return false;
  const folder = stagingPath(target.destination);
  const isThere = !target.overwrite && !(await isVacant(target));
  if (!(await exists(folder))) return isThere;
  await refuseForeignStaging(folder);
  if (!(await exists(join(folder, VERIFIED)))) {
    if (!(await removeEmpty(folder))) return false;
    return isThere; // an error came between the removal of all it held and its own
  }
  if (isInside(target)) {
    await fillMount(target.destination, folder);
    await clearStaging(folder);
    return true;
  }
  const content = await statIfPresent(contentPath(target));
  const placed = content === null || identityOf(content) === identityOf(destination);
  if (placed) await clearStaging(folder);
  return placed;
}

/** Removes a staged folder. The mark of a finished run goes last: until then a resume can see that it has finished. */
export async function clearStaging(folder: string): Promise<void> {
  try {
    const names = (await readdir(folder)).filter((name) => name !== VERIFIED);
    for (const name of names) await rm(join(folder, name), { recursive: true, force: true });
    await rm(join(folder, VERIFIED), { force: true });
    await rmdir(folder);
  } catch (error) {
    throw systemError(error, { file: folder });
  }
}

async function removeEmpty(folder: string): Promise<boolean> {
  return rmdir(folder).then(
    () => true,
    (error) => {
      if (error.code === "ENOTEMPTY" || error.code === "EEXIST") return false;
      throw systemError(error, { file: folder });
    },
  );
}

/** From here on files are written: the run is no longer one that has only to rename. */
export async function unmarkVerified(folder: string): Promise<void> {
  await rm(join(folder, VERIFIED), { force: true });
}

/** Is it staged inside the destination, which is a mount point? */
function isInside({ destination }: Pick<Destination, "destination">): boolean {
  return stagingPath(destination) === join(resolve(destination), INSIDE);
}

/**
 * Gives the staged content the destination's name. Nothing is replaced but what was there when the run began. In a
 * mount point, which cannot be renamed, files and folders get their names one after the other; where that is
 * interrupted, a resume ends it.
 *
 * @param before the destination when the run began; null where nothing was
 * @throws DESTINATION_EXISTS where something else is there now; what was staged stays
 */
export async function putInPlace(target: Destination, before: Stamps | null): Promise<void> {
  const destination = resolve(target.destination);
  const folder = stagingPath(destination);
  await writeFile(join(folder, VERIFIED), "");
  await syncFolder(folder);
  const found = await statIfPresent(destination);
  const isEmpty = await isVacant(target);
  if (found !== null) {
    const now = await stampsAt(destination);
    if (before === null || now === null || pathsThatDiffer(before, now).length > 0)
      throw cameBetween(destination);
  }
  if (isInside(target)) return await fillMount(destination, folder);
  if (found !== null && !isEmpty) await replace(destination, join(folder, REPLACED), found);
  await moveInto(contentPath(target), destination, target.container, isEmpty);
  await syncFolder(dirname(destination));
}

/** @throws DESTINATION_EXISTS where another thing took its name in this moment; that one stays */
async function replace(destination: string, aside: string, before: BigIntStats): Promise<void> {
  await rename(destination, aside);
  const moved = await statIfPresent(aside);
  if (moved !== null && identityOf(moved) === identityOf(before)) return;
  await putBack(destination);
  throw cameBetween(destination);
}

/**
 * What is staged inside a mount point moves up into it, and what it held before is set aside. An earlier run may have
 * done a part: the mark says that all there is new from then on.
 */
async function fillMount(destination: string, folder: string): Promise<void> {
  const [aside, data] = [join(folder, REPLACED), join(folder, DATA)];
  // All was moved, and a part of this folder was removed: what lies in the mount point is new.
  if ((await namesIn(data)).length === 0) return;
  const isCleared = await exists(join(folder, CLEARED));
  for (const name of isCleared ? [] : await namesIn(destination)) {
    await mkdir(aside, { recursive: true });
    await rename(join(destination, name), join(aside, name));
  }
  await writeFile(join(folder, CLEARED), "");
  await syncFolder(folder);
  for (const name of await namesIn(data)) await rename(join(data, name), join(destination, name));
  await syncFolder(destination);
}

/** The old destination returns, where it was set aside and nothing took its place. */
export async function putBack(destination: string): Promise<void> {
  const aside = join(stagingPath(destination), REPLACED);
  if (isInside({ destination })) {
    const isTaken = (await namesIn(destination)).length > 0;
    if (isTaken || (await exists(join(dirname(aside), VERIFIED)))) return;
    for (const name of await namesIn(aside))
      await rename(join(aside, name), join(resolve(destination), name));
    return;
  }
  if ((await exists(aside)) && !(await exists(destination))) await rename(aside, resolve(destination));
}

/** Drops what an earlier run set aside, where something else has its place: it was to be overwritten. */
export async function dropReplaced(folder: string): Promise<void> {
  await rm(join(folder, REPLACED), { recursive: true, force: true });
}

export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * A file is linked, for a link replaces nothing. A folder can only be renamed, and may replace an empty folder that
 * is made in this very moment: one that holds something is refused by the file system.
 */
async function moveInto(
  content: string,
  destination: string,
  container: Destination["container"],
  replacesEmpty: boolean,
): Promise<void> {
  try {
    if (container === "file" && (await linkTo(content, destination))) return;
    if (!replacesEmpty && (await exists(destination))) throw cameBetween(destination);
    await rename(content, destination);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "";
    if (code === "EEXIST" || code === "ENOTEMPTY" || code === "ENOTDIR") throw cameBetween(destination);
    throw error;
  }
}

/** @returns false where the file system has no links; the file's staged name stays until the folder is cleared */
async function linkTo(content: string, destination: string): Promise<boolean> {
  try {
    await link(content, destination);
    return true;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK"].includes(code)) return false;
    throw error;
  }
}

function cameBetween(destination: string): IsologitError {
  const next = "move it away, then continue with `resume`; or replace it with `resume` `overwrite`";
  const message = "something was put there, or changed there, during the run";
  return new IsologitError("DESTINATION_EXISTS", message, { file: destination }, { next });
}
