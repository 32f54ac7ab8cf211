/**
 * Downloads a file of a commit into a folder of the user (`--local-dir`). Like Python's huggingface_hub it records the
 * file in `.cache/huggingface/download/PATH.metadata`, in three lines: commit, etag, seconds since 1970.
 */
import { copyFile, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { systemError } from "../../core/errors.ts";
import { makeFolders } from "../../io/folders.ts";
import { findCachedFile } from "../cache/inventory.ts";
import { repoFolder } from "../cache/layout.ts";
import { acquireLock } from "../cache/lock.ts";
import { type Connection, offlineError } from "../connection.ts";
import { digestOfFile } from "../digest.ts";
import type { HubFile, Listing } from "../files.ts";
import type { BlobOptions, FetchedFile } from "./blob.ts";
import { transferFile } from "./transfer.ts";

export const notesFolder = (folder: string): string => join(folder, ".cache", "huggingface");

const noteOf = ({ path }: HubFile, folder: string): string =>
  join(notesFolder(folder), "download", `${path}.metadata`);

/** Whether a folder holds a file already. */
export function isInFolder(file: HubFile, folder: string, signal?: AbortSignal): Promise<boolean> {
  return isPresent(join(folder, file.path), noteOf(file, folder), file, signal);
}

/** @throws as `fetchBlob` */
export async function fetchToFolder(
  connection: Connection,
  listing: Listing,
  file: HubFile,
  folder: string,
  options: BlobOptions = {},
): Promise<FetchedFile> {
  const path = join(folder, file.path);
  const note = noteOf(file, folder);
  const { signal, advance } = options;
  const { repo, commit } = listing;
  try {
    await makeFolders(dirname(note));
    await makeFolders(dirname(path));
    await using _ = await acquireLock(`${note.slice(0, -".metadata".length)}.isologit.lock`, {
      signal,
      ...(options.waiting !== undefined && { waiting: () => options.waiting?.(file) }),
    });
    let bytes = 0;
    if (await isPresent(path, note, file, signal)) advance?.(file.size);
    else {
      const cached = await findCachedFile(repoFolder(connection.settings.cache, repo), commit, file);
      const partial = `${note.slice(0, -".metadata".length)}.${file.etag}.incomplete`;
      if (cached !== undefined) {
        await copyFile(cached, `${partial}.copy`);
        await rename(`${partial}.copy`, path);
        advance?.(file.size);
      } else {
        if (connection.settings.offline) throw offlineError({ file: file.path });
        bytes = await transferFile(connection, {
          repo,
          commit,
          file,
          partial,
          final: path,
          signal,
          ...(advance && { advance }),
        });
      }
    }
    await writeFile(note, `${commit}\n${file.etag}\n${Date.now() / 1000}\n`);
    return { path, bytes };
  } catch (error) {
    throw systemError(error, { file: path });
  }
}

/** Compares the recorded etag if the file was not changed since; else the digest of the file. */
async function isPresent(path: string, note: string, file: HubFile, signal?: AbortSignal): Promise<boolean> {
  const about = await stat(path).catch(() => undefined);
  if (about === undefined || !about.isFile() || about.size !== file.size) return false;
  const [, etag, seconds] = (await readFile(note, "utf8").catch(() => "")).split("\n");
  if (etag === file.etag && about.mtimeMs / 1000 - 1 <= Number(seconds)) return true;
  return (await digestOfFile(path, file, signal)) === file.etag;
}
