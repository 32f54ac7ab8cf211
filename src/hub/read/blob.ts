/** Downloads a file of a commit into the cache, under its digest, and links to it from the snapshot. */
import { randomUUID } from "node:crypto";
import { copyFile, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { systemError } from "../../core/errors.ts";
import { makeFolders } from "../../io/folders.ts";
import { blobPath, incompletePath, type RepoFolder, repoFolder, snapshotPath } from "../cache/layout.ts";
import { acquireLock } from "../cache/lock.ts";
import { type Connection, offlineError } from "../connection.ts";
import type { HubFile, Listing } from "../files.ts";
import { transferFile } from "./transfer.ts";

export interface BlobOptions {
  readonly signal?: AbortSignal | undefined;
  readonly advance?: (bytes: number) => void;
  /** called if another process downloads the same file */
  readonly waiting?: (file: HubFile) => void;
}

export interface FetchedFile {
  /** path in the snapshot, or in the target folder */
  readonly path: string;
  /** bytes received from the network */
  readonly bytes: number;
}

/** Whether the cache holds the content of a file. */
export async function isCached({ settings }: Connection, { repo }: Listing, file: HubFile): Promise<boolean> {
  return await isComplete(blobPath(repoFolder(settings.cache, repo), file.etag), file);
}

/** @throws TRANSFER_DAMAGED, NETWORK, ACCESS_REFUSED, OFFLINE, DISK_FULL, IO_FAILED, INTERRUPTED */
export async function fetchBlob(
  connection: Connection,
  listing: Listing,
  file: HubFile,
  options: BlobOptions = {},
): Promise<FetchedFile> {
  const { settings } = connection;
  const folder = repoFolder(settings.cache, listing.repo);
  const pointer = join(snapshotPath(folder, listing.commit), file.path);
  const blob = blobPath(folder, file.etag);
  const { advance, signal } = options;
  if (await isComplete(pointer, file)) {
    advance?.(file.size);
    return { path: pointer, bytes: 0 };
  }
  if (settings.offline && !(await isComplete(blob, file))) throw offlineError({ file: file.path });
  await tagCache(settings.cache);
  await using _ = await acquireLock(join(folder.locks, `${file.etag}.isologit.lock`), {
    signal,
    ...(options.waiting !== undefined && { waiting: () => options.waiting?.(file) }),
  });
  let bytes = 0;
  if (await isComplete(blob, file)) advance?.(file.size);
  else {
    const partial = incompletePath(folder, file.etag);
    const { repo, commit } = listing;
    bytes = await transferFile(connection, {
      repo,
      commit,
      file,
      partial,
      final: blob,
      signal,
      ...(advance && { advance }),
    });
  }
  await linkToBlob(folder, pointer, blob);
  return { path: pointer, bytes };
}

async function isComplete(path: string, { size }: HubFile): Promise<boolean> {
  const about = await stat(path).catch(() => undefined);
  return about?.isFile() === true && about.size === size;
}

/**
 * Makes a relative link, so that the cache can be moved, or a copy if links are not allowed. It appears by a rename.
 */
async function linkToBlob({ root }: RepoFolder, pointer: string, blob: string): Promise<void> {
  const draft = `${pointer}.${randomUUID()}.tmp`;
  try {
    await makeFolders(dirname(pointer));
    await symlink(relative(dirname(pointer), blob), draft).catch((error) => {
      if (["EPERM", "ENOSYS", "EOPNOTSUPP", "ENOTSUP"].includes(error.code)) return copyFile(blob, draft);
      throw error;
    });
    await rename(draft, pointer);
  } catch (error) {
    throw systemError(error, { file: relative(root, pointer) });
  }
}

/** Marks the folder as a cache, so that backup programs skip it (bford.info/cachedir). */
async function tagCache(cache: string): Promise<void> {
  const path = join(cache, "CACHEDIR.TAG");
  if ((await readFile(path).catch(() => undefined)) !== undefined) return;
  try {
    await makeFolders(cache);
    const why = "# This folder is a cache of files of the Hugging Face Hub.\n";
    await writeFile(path, `Signature: 8a477f597d28d172789f06886806bc55\n${why}`, { flag: "wx" });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return;
    throw systemError(error, { file: path });
  }
}
