/** The files of this machine that an upload is about, and whether the repository has them already. */
import { open, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { safePath } from "../core/safe-path.ts";
import { fileStore } from "../io/file.ts";
import { type Choice, chosen } from "./globs.ts";
import type { SentFile } from "./journal.ts";
import type { HubFile } from "./listing.ts";
import { hashFile, hashFor } from "./transfer.ts";

export interface LocalFile {
  /** in the repository */
  readonly path: string;
  readonly size: number;
  readonly mtimeMs: number;
  readonly content: { readonly file: string } | { readonly text: string };
}

/**
 * @param inRepo where they go; empty: to the root, a file under its own name
 * @throws NOT_FOUND, IO_FAILED, PATH_UNSAFE
 */
export async function localFiles(
  path: string,
  inRepo: string,
  choice: Choice,
): Promise<readonly LocalFile[]> {
  const store = await fileStore(path);
  const single = (await stat(path)).isFile();
  const wanted = chosen(choice);
  const files = (await store.list()).filter((file) => single || wanted(file.path));
  if (files.length === 0) throw new IsologitError("NOT_FOUND", "there is no file to upload", { file: path });
  return await Promise.all(
    files.map(async (file) => {
      const from = single ? path : join(path, file.path);
      const to = single ? inRepo || basename(path) : inRepo === "" ? file.path : `${inRepo}/${file.path}`;
      const { size, mtimeMs } = await stat(from).catch((error) =>
        Promise.reject(systemError(error, { file: from })),
      );
      return { path: safePath(to, { file: from }), size, mtimeMs, content: { file: from } };
    }),
  );
}

/**
 * By the journal, where the file was not touched since it was sent; else by its digest.
 *
 * @param sent what the journal says of it
 */
export async function isSame(
  one: LocalFile,
  remote: HubFile | undefined,
  sent: SentFile | undefined,
  signal?: AbortSignal,
): Promise<boolean> {
  if (remote === undefined || remote.size !== one.size) return false;
  const { content } = one;
  const hash = hashFor(remote);
  if ("text" in content) return hash.update(content.text).digest("hex") === remote.etag;
  if (sent?.size === one.size && sent.mtimeMs === one.mtimeMs) return sent.etag === remote.etag;
  const handle = await open(content.file, "r");
  try {
    await hashFile(handle, one.size, hash, signal);
  } finally {
    await handle.close();
  }
  return hash.digest("hex") === remote.etag;
}
