/** A file of a commit into the cache: fetched if it is not there, under its digest, with a link in the snapshot. */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { systemError } from "../core/errors.ts";
import { blobPath, incompletePath, type RepoFolder, repoFolder, snapshotPath } from "./cache/layout.ts";
import { locked } from "./cache/lock.ts";
import type { Connection } from "./connection.ts";
import { offline } from "./connection.ts";
import type { HubFile, Listing } from "./listing.ts";
import { transfer } from "./transfer.ts";

export interface BlobOptions {
  readonly signal?: AbortSignal | undefined;
  readonly advance?: (bytes: number) => void;
  /** told when another process is found fetching the same */
  readonly waiting?: (file: HubFile) => void;
}

export interface Fetched {
  /** in the snapshot */
  readonly path: string;
  /** bytes that came over the network now */
  readonly bytes: number;
}

/** @throws TRANSFER_DAMAGED, NETWORK, ACCESS_REFUSED, OFFLINE, DISK_FULL, IO_FAILED, INTERRUPTED */
export async function fetchBlob(
  connection: Connection,
  listing: Listing,
  file: HubFile,
  options: BlobOptions = {},
): Promise<Fetched> {
  const { settings } = connection;
  const folder = repoFolder(settings.cache, listing.repo);
  const pointer = join(snapshotPath(folder, listing.commit), file.path);
  const blob = blobPath(folder, file.etag);
  const { advance, signal } = options;
  if (await has(pointer, file)) {
    advance?.(file.size);
    return { path: pointer, bytes: 0 };
  }
  if (settings.offline && !(await has(blob, file))) throw offline({ file: file.path });
  await tagCache(settings.cache);
  await using _ = await locked(join(folder.locks, `${file.etag}.isologit.lock`), {
    signal,
    ...(options.waiting !== undefined && { waiting: () => options.waiting?.(file) }),
  });
  let bytes = 0;
  if (await has(blob, file)) advance?.(file.size);
  else {
    const partial = incompletePath(folder, file.etag);
    const { repo, commit } = listing;
    bytes = await transfer(connection, {
      repo,
      commit,
      file,
      partial,
      final: blob,
      signal,
      ...(advance && { advance }),
    });
  }
  await point(folder, pointer, blob);
  return { path: pointer, bytes };
}

async function has(path: string, { size }: HubFile): Promise<boolean> {
  const about = await stat(path).catch(() => undefined);
  return about?.isFile() === true && about.size === size;
}

/** By a relative link, so that a cache may be moved; where links are not allowed, by a copy. Made beside, then renamed. */
async function point({ root }: RepoFolder, pointer: string, blob: string): Promise<void> {
  const draft = `${pointer}.${randomUUID()}.tmp`;
  try {
    await mkdir(dirname(pointer), { recursive: true });
    await symlink(relative(dirname(pointer), blob), draft).catch((error) => {
      if (["EPERM", "ENOSYS", "EOPNOTSUPP", "ENOTSUP"].includes(error.code)) return copyFile(blob, draft);
      throw error;
    });
    await rename(draft, pointer);
  } catch (error) {
    throw systemError(error, { file: relative(root, pointer) });
  }
}

/** Tells backup programs that all of this can be fetched again (bford.info/cachedir). */
async function tagCache(cache: string): Promise<void> {
  const path = join(cache, "CACHEDIR.TAG");
  if ((await readFile(path).catch(() => undefined)) !== undefined) return;
  try {
    await mkdir(cache, { recursive: true });
    const why = "# This folder is a cache of files of the Hugging Face Hub.\n";
    await writeFile(path, `Signature: 8a477f597d28d172789f06886806bc55\n${why}`, { flag: "wx" });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return;
    throw systemError(error, { file: path });
  }
}
