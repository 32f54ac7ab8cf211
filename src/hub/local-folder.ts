/**
 * A file of a commit into a folder of a person's own (`--local-dir`), with a note of what it is where Python's
 * huggingface_hub puts it: `.cache/huggingface/download/PATH.metadata`, three lines: commit, etag, seconds since 1970.
 */
import { copyFile, mkdir, open, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { systemError } from "../core/errors.ts";
import type { BlobOptions, Fetched } from "./blob.ts";
import { repoFolder } from "./cache/layout.ts";
import { locked } from "./cache/lock.ts";
import { type Connection, offline } from "./connection.ts";
import type { HubFile, Listing } from "./listing.ts";
import { cachedFile } from "./store.ts";
import { hashFile, hashFor, transfer } from "./transfer.ts";

export const notesFolder = (folder: string): string => join(folder, ".cache", "huggingface");

/** @throws as `fetchBlob` */
export async function fetchLocal(
  connection: Connection,
  listing: Listing,
  file: HubFile,
  folder: string,
  options: BlobOptions = {},
): Promise<Fetched> {
  const path = join(folder, file.path);
  const note = join(notesFolder(folder), "download", `${file.path}.metadata`);
  const { signal, advance } = options;
  const { repo, commit } = listing;
  try {
    await mkdir(dirname(note), { recursive: true });
    await mkdir(dirname(path), { recursive: true });
    await using _ = await locked(`${note.slice(0, -".metadata".length)}.isologit.lock`, {
      signal,
      ...(options.waiting !== undefined && { waiting: () => options.waiting?.(file) }),
    });
    let bytes = 0;
    if (await isThere(path, note, file, signal)) advance?.(file.size);
    else {
      const cached = await cachedFile(repoFolder(connection.settings.cache, repo), commit, file);
      const partial = `${note.slice(0, -".metadata".length)}.${file.etag}.incomplete`;
      if (cached !== undefined) {
        await copyFile(cached, `${partial}.copy`);
        await rename(`${partial}.copy`, path);
        advance?.(file.size);
      } else {
        if (connection.settings.offline) throw offline({ file: file.path });
        bytes = await transfer(connection, {
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

/** By the note, where the file was not touched since; else by its digest. */
async function isThere(path: string, note: string, file: HubFile, signal?: AbortSignal): Promise<boolean> {
  const about = await stat(path).catch(() => undefined);
  if (about === undefined || !about.isFile() || about.size !== file.size) return false;
  const [, etag, seconds] = (await readFile(note, "utf8").catch(() => "")).split("\n");
  if (etag === file.etag && about.mtimeMs / 1000 - 1 <= Number(seconds)) return true;
  const hash = hashFor(file);
  const handle = await open(path, "r");
  try {
    await hashFile(handle, file.size, hash, signal);
  } finally {
    await handle.close();
  }
  return hash.digest("hex") === file.etag;
}
