/**
 * A destination, its staging folder, and the one step that makes the staged content the destination. The caller of every
 * function here holds the destination's lock.
 */
import type { BigIntStats } from "node:fs";
import { link, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";
import { makeFolders, syncFolder } from "./folders.ts";
import { fileStamp, pathsThatDiffer, type Stamps, stampsBelow } from "./inventory.ts";
import { isMountPoint } from "./mount.ts";
import { identityOf, listNames, pathExists, statIfPresent } from "./stamps.ts";

export interface Destination {
  readonly destination: string;
  readonly container: "folder" | "file";
  readonly overwrite: boolean;
}

/** In the staging folder: the content of the destination, or the folder that contains its one file. */
export const DATA = "data";
/** the old destination, until the new one is in place */
const REPLACED = "replaced";
export const JOURNAL = "journal.ndjson";
/** an empty file: only renames remain to be done */
const VERIFIED = "verified";
/** an empty file: all earlier content of a mount point has been moved away */
const CLEARED = "cleared";

/** Staging folder of a mount point, inside it: a folder beside it is on another disk, and it cannot be renamed. */
export const MOUNT_STAGING = ".isologit.partial";

/** File systems allow 255 bytes; the longest name beside a destination is that of a lock that replaces an abandoned one. */
const MAX_NAME_BYTES = 255 - ".partial.lock.0123456789abcdef".length;

/** `DST.partial`; for a mount point, a folder inside it. A name that is too long is cut, and ends with its digest. */
export function stagingPath(destination: string): string {
  const path = resolve(destination);
  return isMountPoint(path)
    ? join(path, MOUNT_STAGING)
    : `${join(dirname(path), shortName(basename(path)))}.partial`;
}

function shortName(name: string): string {
  const bytes = Buffer.from(name);
  if (bytes.byteLength <= MAX_NAME_BYTES) return name;
  const mark = `~${sha256(bytes).slice(0, 16)}`;
  const start = bytes.toString("utf8", 0, MAX_NAME_BYTES - mark.length);
  return `${start.replace(/\uFFFD+$/, "")}${mark}`; // a character that was cut in two became U+FFFD
}

export function contentPath({ destination, container }: Omit<Destination, "overwrite">): string {
  const data = join(stagingPath(destination), DATA);
  return container === "folder" ? data : join(data, basename(resolve(destination)));
}

/**
 * @returns the file or folder that will be replaced; null if there is none
 * @throws DESTINATION_EXISTS unless it may be overwritten, or is an empty folder and the destination is a folder
 */
export async function refuseExisting(target: Destination): Promise<BigIntStats | null> {
  const { destination, overwrite } = target;
  const found = await statIfPresent(destination);
  if (found === null || overwrite || (await isVacant(target))) return found;
  throw new IsologitError("DESTINATION_EXISTS", "the destination exists already", { file: destination });
}

/**
 * The state of a destination and of everything below it: the time of a folder does not change when a file deeper down is
 * written. The staging folder is not included.
 *
 * @returns null if there is no destination
 */
export async function stampsAt(destination: string): Promise<Stamps | null> {
  const found = await statIfPresent(destination);
  if (found === null) return null;
  if (!found.isDirectory()) return new Map([["", fileStamp(found)]]);
  const stamps = await stampsBelow(resolve(destination));
  return new Map([...stamps].filter(([path]) => !path.startsWith(MOUNT_STAGING)));
}

/** Whether the destination is an empty folder (apart from the staging folder) and the checkpoint to write is a folder too. */
async function isVacant({ destination, container }: Omit<Destination, "overwrite">): Promise<boolean> {
  return container === "folder" && (await isEmptyFolder(destination));
}

/** The staging folder does not count. */
async function isEmptyFolder(path: string): Promise<boolean> {
  return (await namesIn(path)).length === 0 && ((await statIfPresent(path))?.isDirectory() ?? false);
}

/** Names in a folder, without the staging folder; none for a link to a folder. */
async function namesIn(folder: string): Promise<readonly string[]> {
  if (!((await statIfPresent(folder))?.isDirectory() ?? false)) return [];
  return (await listNames(folder)).filter((name) => !name.startsWith(MOUNT_STAGING));
}

/**
 * Refuses a staging folder in which links, or files with a second name, replace the folders and the journal of a run: a
 * resumed run would write into files elsewhere, and remove them.
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
    const message = "no earlier run left this: it is a link, or another kind of file";
    const next = "move it away, or start again with `overwrite`";
    throw new IsologitError("STAGING_EXISTS", message, { file: path }, { next });
  }
}

/**
 * Whether an earlier run completed the destination; removes what a crash left in its staging folder after that.
 *
 * @throws STAGING_EXISTS if no run left the staging folder
 */
export async function isFinished(target: Omit<Destination, "container">): Promise<boolean> {
  const folder = stagingPath(target.destination);
  const isStaged = await pathExists(folder);
  if (isStaged) {
    await refuseForeignStaging(folder);
    if (isInside(target) && (await pathExists(join(folder, VERIFIED))))
      await fillMount(target.destination, folder);
  }
  if (!(await isInPlace(target))) return false;
  if (isStaged) await clearStaging(folder);
  return true;
}

/**
 * Whether a run has put the destination in place; a part of its staging folder may be left. Without a staging folder, a
 * destination that may be overwritten is taken for the old one.
 */
export async function isInPlace({
  destination,
  overwrite,
}: Omit<Destination, "container">): Promise<boolean> {
  const found = await statIfPresent(destination);
  if (found === null) return false;
  const folder = stagingPath(destination);
  const left = await listNames(folder);
  // the removal of the folder may have stopped after the content
  if (left.length === 0) return !overwrite && !(await isEmptyFolder(destination));
  if (!left.includes(VERIFIED)) return false;
  const data = join(folder, DATA);
  if ((await namesIn(data)).length === 0) return true;
  const file = await statIfPresent(join(data, basename(resolve(destination)))); // linked, or moved, to the destination
  return file !== null && identityOf(file) === identityOf(found);
}

/** Removes a staging folder. The mark of a finished run is removed last, so that an interrupted removal can resume. */
export async function clearStaging(folder: string): Promise<void> {
  try {
    const names = (await listNames(folder)).filter((name) => name !== VERIFIED);
    for (const name of names) await rm(join(folder, name), { recursive: true, force: true });
    await rm(join(folder, VERIFIED), { force: true });
    await rmdir(folder);
  } catch (error) {
    throw systemError(error, { file: folder });
  }
}

/** Removes the mark of a finished run, because files will be written again. */
export async function unmarkVerified(folder: string): Promise<void> {
  await rm(join(folder, VERIFIED), { force: true });
}

/** Whether the destination is a mount point, with its staging folder inside. */
function isInside({ destination }: Pick<Destination, "destination">): boolean {
  return stagingPath(destination) === join(resolve(destination), MOUNT_STAGING);
}

/**
 * Gives the staged content the destination's name. It replaces only what was there when the run began. A mount point
 * cannot be renamed, so its files and folders are moved one after the other; a resumed run completes an interrupted move.
 *
 * @param before the destination when the run began; null if there was none
 * @throws DESTINATION_EXISTS if the destination has changed since; the staged files stay
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
      throw changedMeanwhile(destination);
  }
  if (isInside(target)) return await fillMount(destination, folder);
  if (found !== null && !isEmpty) await replace(destination, join(folder, REPLACED), found);
  await moveInto(contentPath(target), destination, target.container, isEmpty);
  await syncFolder(dirname(destination));
}

/** @throws DESTINATION_EXISTS if another process replaced the destination just now; its file or folder stays */
async function replace(destination: string, aside: string, before: BigIntStats): Promise<void> {
  await rename(destination, aside);
  const moved = await statIfPresent(aside);
  if (moved !== null && identityOf(moved) === identityOf(before)) return;
  await putBack(destination);
  throw changedMeanwhile(destination);
}

/**
 * Moves the staged content up into the mount point, and its old content into the staging folder. An earlier run may have
 * done a part: after the file CLEARED exists, everything in the mount point is new.
 */
async function fillMount(destination: string, folder: string): Promise<void> {
  const [aside, data] = [join(folder, REPLACED), join(folder, DATA)];
  // an earlier run moved everything and stopped while it removed this folder
  if ((await namesIn(data)).length === 0) return;
  const isCleared = await pathExists(join(folder, CLEARED));
  for (const name of isCleared ? [] : await namesIn(destination)) {
    await makeFolders(aside);
    await rename(join(destination, name), join(aside, name));
  }
  await writeFile(join(folder, CLEARED), "");
  await syncFolder(folder);
  for (const name of await namesIn(data)) await rename(join(data, name), join(destination, name));
  await syncFolder(destination);
}

/** Moves the old destination back if it was moved aside and nothing is in its place. */
export async function putBack(destination: string): Promise<void> {
  const aside = join(stagingPath(destination), REPLACED);
  if (isInside({ destination })) {
    const isTaken = (await namesIn(destination)).length > 0;
    if (isTaken || (await pathExists(join(dirname(aside), VERIFIED)))) return;
    for (const name of await namesIn(aside))
      await rename(join(aside, name), join(resolve(destination), name));
    return;
  }
  if ((await pathExists(aside)) && !(await pathExists(destination)))
    await rename(aside, resolve(destination));
}

/** Removes the old destination that an earlier run moved aside: something new is in its place. */
export async function dropReplaced(folder: string): Promise<void> {
  await rm(join(folder, REPLACED), { recursive: true, force: true });
}

/**
 * A file is linked, because a link never replaces a file. A folder can only be renamed: it may replace an empty folder
 * that another process makes at this moment, and the file system refuses to replace a folder with content.
 */
async function moveInto(
  content: string,
  destination: string,
  container: Destination["container"],
  replacesEmpty: boolean,
): Promise<void> {
  try {
    if (container === "file" && (await linkTo(content, destination))) return;
    if (!replacesEmpty && (await pathExists(destination))) throw changedMeanwhile(destination);
    await rename(content, destination);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : "";
    if (code === "EEXIST" || code === "ENOTEMPTY" || code === "ENOTDIR") throw changedMeanwhile(destination);
    throw error;
  }
}

/** @returns false if the file system has no links. The staged name of the file stays until the folder is removed */
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

function changedMeanwhile(destination: string): IsologitError {
  const next = "move it away, then continue with `resume`; or replace it with `resume` `overwrite`";
  const message = "another process created or changed it during the run";
  return new IsologitError("DESTINATION_EXISTS", message, { file: destination }, { next });
}
