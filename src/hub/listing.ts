/** What a revision of a repository is: one commit, and every file in it with its digest. */
import { randomUUID } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { listFiles, modelInfo } from "@huggingface/hub";
import { z } from "zod";
import { IsologitError, systemError } from "../core/errors.ts";
import { safePath } from "../core/safe-path.ts";
import { isCommit, type RepoFolder, refPath, repoFolder, treePath } from "./cache/layout.ts";
import { ask, type Connection, offline } from "./connection.ts";

export interface HubFile {
  readonly path: string;
  /** bytes */
  readonly size: number;
  /** SHA-256 of a file in LFS or Xet, else git's SHA-1 of it as a blob: hex, and its name in the cache */
  readonly etag: string;
  /** git's name of what is committed: of the file itself, or of the LFS pointer to it */
  readonly blob: string;
  readonly xet?: string;
}

/** In LFS or Xet, and not in git itself. */
export const isLarge = ({ etag }: HubFile): boolean => etag.length === 64;

export interface Listing {
  readonly repo: string;
  readonly commit: string;
  /** what was asked for */
  readonly revision: string;
  /** sorted by path */
  readonly files: readonly HubFile[];
}

/** A zarr checkpoint has some 100,000 files. */
const MAX_FILES = 1_000_000;

const oid = z.string().regex(/^[0-9a-f]{40}$/);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const Entry = z.object({
  type: z.string(),
  path: z.string(),
  size: count,
  oid,
  lfs: z.object({ oid: sha256, size: count }).optional(),
  xetHash: sha256.optional(),
});
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
 * Pins a revision to its commit and lists it. Offline the cache answers, from what was asked before.
 *
 * @throws NOT_FOUND, ACCESS_REFUSED, NETWORK, OFFLINE; LISTING_UNSAFE for names that lead out of a folder
 */
export async function listRevision(
  connection: Connection,
  repo: string,
  revision = "main",
  signal?: AbortSignal,
): Promise<Listing> {
  const folder = repoFolder(connection.settings.cache, repo);
  const commit = await commitOf(connection, folder, revision, signal);
  const known = await readTree(folder.root, commit);
  const files = known ?? (await fetchTree(connection, repo, commit, signal));
  return { repo, commit, revision, files };
}

async function commitOf(connection: Connection, folder: RepoFolder, revision: string, signal?: AbortSignal) {
  const { repo } = folder;
  const at = { file: `hf://${repo}@${revision}` };
  if (isCommit(revision)) return revision;
  if (connection.settings.offline) {
    const found = await readFile(refPath(folder, revision), "utf8").catch((cause) => {
      if (cause.code === "ENOENT" || cause.code === "ENOTDIR" || cause.code === "EISDIR") throw offline(at);
      throw systemError(cause, at);
    });
    if (isCommit(found.trim())) return found.trim();
    throw new IsologitError("IO_FAILED", "the cache names no commit here", {
      file: refPath(folder, revision),
    });
  }
  const about = { repo, revision, at };
  const { sha } = await ask(connection, about, () =>
    modelInfo({
      ...connection.access,
      name: repo,
      revision,
      additionalFields: ["sha"],
      fetch: connection.fetchFor(about, signal),
    }),
  );
  if (!isCommit(String(sha)))
    throw new IsologitError("NETWORK", "the Hub names no commit of this revision", at);
  return sha;
}

async function fetchTree(connection: Connection, repo: string, commit: string, signal?: AbortSignal) {
  const at = { file: `hf://${repo}@${commit}` };
  if (connection.settings.offline) throw offline(at);
  const about = { repo, revision: commit, at };
  const fetch = connection.fetchFor(about, signal);
  return await ask(connection, about, async () => {
    const files: HubFile[] = [];
    const pages = listFiles({ ...connection.access, repo, revision: commit, recursive: true, fetch });
    for await (const item of pages) {
      const entry = Entry.safeParse(item);
      if (!entry.success) {
        throw new IsologitError(
          "NETWORK",
          `the Hub's listing is not understood: ${entry.error.issues[0]?.message}`,
          at,
        );
      }
      if (entry.data.type !== "file") continue;
      if (files.length === MAX_FILES) throw new IsologitError("NETWORK", `more than ${MAX_FILES} files`, at);
      const { path, size, oid: blob, lfs, xetHash } = entry.data;
      files.push({
        path,
        size: lfs?.size ?? size,
        etag: lfs?.oid ?? blob,
        blob,
        ...(xetHash !== undefined && { xet: xetHash }),
      });
    }
    return checked(files, repo);
  });
}

/** Sorted, each name once, none that leads out of its folder or is a folder of another. */
function checked(files: readonly HubFile[], repo: string): readonly HubFile[] {
  const unsafe = (message: string) => new IsologitError("LISTING_UNSAFE", message, { file: `hf://${repo}` });
  const sorted = [...files].sort((a, b) => (a.path < b.path ? -1 : 1));
  const names = new Set(sorted.map(({ path }) => path));
  if (names.size !== sorted.length) throw unsafe("the listing names a file twice");
  for (const { path } of sorted) {
    try {
      safePath(path);
    } catch {
      throw unsafe(`the repository has a file named ${JSON.stringify(path)}, which is no plain path`);
    }
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) {
      if (names.has(path.slice(0, at))) {
        throw unsafe(`${JSON.stringify(path.slice(0, at))} is both a file and a folder`);
      }
    }
  }
  return sorted;
}

/** @param root the repository's folder in the cache, or `.cache/huggingface` of a folder downloaded to */
export async function readTree(root: string, commit: string): Promise<readonly HubFile[] | undefined> {
  const text = await readFile(treePath(root, commit), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  const tree = Tree.safeParse(parsed(text));
  if (!tree.success) return undefined; // another version's, or cut short: it is asked for again
  const files = Object.entries(tree.data.files).map(([path, entry]) => ({
    path,
    size: entry.lfs_size ?? entry.size,
    etag: entry.lfs_sha256 ?? entry.blob_id,
    blob: entry.blob_id,
    ...(entry.xet_hash !== undefined && { xet: entry.xet_hash }),
  }));
  return checked(files, root);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Keeps what a revision is in the cache, so that it is known without asking. */
export async function remember({ settings }: Connection, listing: Listing): Promise<void> {
  const folder = repoFolder(settings.cache, listing.repo);
  const { revision, commit, files } = listing;
  if (settings.offline) return;
  if (revision !== commit) await replaceFile(refPath(folder, revision), commit);
  await writeTree(folder.root, commit, files);
}

/** Keeps a listing where Python looks for it. */
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
    await mkdir(dirname(path), { recursive: true });
    await writeFile(draft, text);
    await rename(draft, path);
  } catch (error) {
    throw systemError(error, { file: path });
  }
}
