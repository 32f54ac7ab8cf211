/** The list of a commit's files, in the format of Python's huggingface_hub. */
import { randomUUID } from "node:crypto";
import { readFile, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { systemError } from "../../core/errors.ts";
import { makeFolders } from "../../io/folders.ts";
import type { Connection } from "../connection.ts";
import { type HubFile, type Listing, validateFiles } from "../files.ts";
import { refPath, repoFolder, treePath } from "./layout.ts";

const oid = z.string().regex(/^[0-9a-f]{40}$/);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const Tree = z.object({
  format_version: z.literal(1),
  files: z.record(
    z.string(),
    z.object({
      size: count,
      blob_id: oid,
      lfs_sha256: sha256.optional(),
      lfs_size: count.optional(),
      xet_hash: sha256.optional(),
    }),
  ),
});

/**
 * @param root the repository's folder in the cache, or `.cache/huggingface` in the target folder of a download
 * @returns undefined if the list is missing or unreadable
 */
export async function readTree(root: string, commit: string): Promise<readonly HubFile[] | undefined> {
  const text = await readFile(treePath(root, commit), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const tree = Tree.safeParse(parseJson(text));
  if (!tree.success) return undefined; // another version of the format, or an incomplete file: the caller requests the list again
  const files = Object.entries(tree.data.files).map(([path, entry]) => ({
    path,
    size: entry.lfs_size ?? entry.size,
    etag: entry.lfs_sha256 ?? entry.blob_id,
    blob: entry.blob_id,
    ...(entry.xet_hash !== undefined && { xet: entry.xet_hash }),
  }));
  return validateFiles(files, root);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Records a listing in the cache: the commit of its revision, and the files of the commit. */
export async function saveListing({ settings }: Connection, listing: Listing): Promise<void> {
  const folder = repoFolder(settings.cache, listing.repo);
  const { revision, commit, files } = listing;
  if (settings.offline) return;
  if (revision !== commit) await replaceFile(refPath(folder, revision), commit);
  await writeTree(folder.root, commit, files);
}

/** Writes the list of a commit's files where Python's huggingface_hub looks for it. */
export async function writeTree(root: string, commit: string, files: readonly HubFile[]): Promise<void> {
  const path = treePath(root, commit);
  const entries = files.map(({ path: name, size, etag, blob, xet }) => [
    name,
    {
      size,
      blob_id: blob,
      ...(etag !== blob && { lfs_sha256: etag, lfs_size: size }),
      ...(xet !== undefined && { xet_hash: xet }),
    },
  ]);
  await replaceFile(path, JSON.stringify({ format_version: 1, files: Object.fromEntries(entries) }, null, 1));
}

async function replaceFile(path: string, text: string): Promise<void> {
  const draft = `${path}.${randomUUID()}.tmp`;
  try {
    await makeFolders(dirname(path));
    await writeFile(draft, text);
    await rename(draft, path);
  } catch (error) {
    throw systemError(error, { file: path });
  }
}
