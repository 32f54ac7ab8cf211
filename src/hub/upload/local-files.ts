/** Local files of an upload, and whether the repository already has them. */
import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { IsologitError, systemError } from "../../core/errors.ts";
import { safePath } from "../../core/safe-path.ts";
import { fileStore } from "../../io/file.ts";
import { digestOfFile, hashFor } from "../digest.ts";
import type { HubFile } from "../files.ts";
import { type PathPatterns, pathFilter } from "../path-patterns.ts";
import type { SentFile } from "./journal.ts";

export interface LocalFile {
  /** path in the repository */
  readonly path: string;
  readonly size: number;
  readonly mtimeMs: number;
  readonly content: { readonly file: string } | { readonly text: string };
}

/**
 * @param inRepo target path in the repository; empty: the root, where a single file has its own name
 * @throws NOT_FOUND, IO_FAILED, PATH_UNSAFE
 */
export async function listLocalFiles(
  path: string,
  inRepo: string,
  choice: PathPatterns,
): Promise<readonly LocalFile[]> {
  const store = await fileStore(path);
  const about = (file: string) =>
    stat(file).catch((error) => {
      throw systemError(error, { file });
    });
  const single = (await about(path)).isFile();
  const wanted = pathFilter(choice);
  const files = (await store.list()).filter((file) => single || wanted(file.path));
  if (files.length === 0) throw new IsologitError("NOT_FOUND", "there is no file to upload", { file: path });
  return await Promise.all(
    files.map(async (file) => {
      const from = single ? path : join(path, file.path);
      const to = single ? inRepo || basename(path) : inRepo === "" ? file.path : `${inRepo}/${file.path}`;
      const { size, mtimeMs } = await about(from);
      return { path: safePath(to, { file: from }), size, mtimeMs, content: { file: from } };
    }),
  );
}

/**
 * Whether the repository has the same file: by the journal if the file did not change since it was sent, else by
 * digest.
 *
 * @param sent the entry of the file in the journal
 */
export async function isUnchanged(
  local: LocalFile,
  remote: HubFile | undefined,
  sent: SentFile | undefined,
  signal?: AbortSignal,
): Promise<boolean> {
  if (remote === undefined || remote.size !== local.size) return false;
  const { content } = local;
  if ("text" in content) return hashFor(remote).update(content.text).digest("hex") === remote.etag;
  if (sent?.size === local.size && sent.mtimeMs === local.mtimeMs) return sent.etag === remote.etag;
  return (await digestOfFile(content.file, remote, signal)) === remote.etag;
}
