/** Creates folders, and brings them to the disk. */
import { mkdir, open, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/**
 * Creates a folder and the missing folders above it, one after the other: Node's own recursive `mkdir` reports a full disk
 * and a used-up quota as a missing folder.
 *
 * @returns the folders that did not exist before, the outermost first
 * @throws errors of Node
 */
export async function makeFolders(path: string): Promise<readonly string[]> {
  const folder = resolve(path);
  const above = dirname(folder);
  try {
    return (await makeFolder(folder)) ? [folder] : [];
  } catch (error) {
    if (!isMissing(error) || above === folder) throw error;
  }
  const made = await makeFolders(above);
  return (await makeFolder(folder)) ? [...made, folder] : made;
}

/** @returns false if the folder exists already */
async function makeFolder(folder: string): Promise<boolean> {
  try {
    await mkdir(folder);
    return true;
  } catch (error) {
    // Some systems answer EROFS or EPERM for a folder that exists, so its kind decides.
    if (isMissing(error) || !(await isFolder(folder))) throw error;
    return false;
  }
}

async function isFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    (about) => about.isDirectory(),
    () => false,
  );
}

/** Brings the names in a folder to the disk. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ENOENT";
