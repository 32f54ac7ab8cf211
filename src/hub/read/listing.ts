/** Resolves a revision of a repository to a commit and lists its files with their digests. */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { IsologitError, systemError } from "../../core/errors.ts";
import { isCommit, type RepoFolder, refPath, repoFolder } from "../cache/layout.ts";
import { readTree } from "../cache/tree.ts";
import { type Connection, callHub, offlineError } from "../connection.ts";
import { type HubFile, type Listing, validateFiles } from "../files.ts";

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
/**
 * Resolves a revision to its commit and lists the files. Offline, both come from the cache.
 *
 * @throws NOT_FOUND, ACCESS_REFUSED, NETWORK, OFFLINE; LISTING_UNSAFE for paths outside the folder
 */
export async function listRevision(
  connection: Connection,
  repo: string,
  revision = "main",
  signal?: AbortSignal,
): Promise<Listing> {
  const folder = repoFolder(connection.settings.cache, repo);
  const commit = await resolveCommit(connection, folder, revision, signal);
  const known = await readTree(folder.root, commit);
  const files = known ?? (await fetchTree(connection, repo, commit, signal));
  return { repo, commit, revision, files };
}

async function resolveCommit(
  connection: Connection,
  folder: RepoFolder,
  revision: string,
  signal?: AbortSignal,
) {
  const { repo } = folder;
  const at = { file: `hf://${repo}@${revision}` };
  if (isCommit(revision)) return revision;
  if (connection.settings.offline) {
    const found = await readFile(refPath(folder, revision), "utf8").catch((cause) => {
      if (cause.code === "ENOENT" || cause.code === "ENOTDIR" || cause.code === "EISDIR")
        throw offlineError(at);
      throw systemError(cause, at);
    });
    if (isCommit(found.trim())) return found.trim();
    throw new IsologitError("IO_FAILED", "the ref in the cache does not contain a commit", {
      file: refPath(folder, revision),
    });
  }
  const subject = { repo, revision, at };
  const { modelInfo } = await import("@huggingface/hub");
  const { sha } = await callHub(connection, subject, () =>
    modelInfo({
      ...connection.access,
      name: repo,
      revision,
      additionalFields: ["sha"],
      fetch: connection.fetchFor(subject, signal),
    }),
  );
  if (!isCommit(String(sha)))
    throw new IsologitError("NETWORK", "the Hub returned no commit for this revision", at);
  return sha;
}

async function fetchTree(connection: Connection, repo: string, commit: string, signal?: AbortSignal) {
  const at = { file: `hf://${repo}@${commit}` };
  if (connection.settings.offline) throw offlineError(at);
  const subject = { repo, revision: commit, at };
  const fetch = connection.fetchFor(subject, signal);
  const { listFiles } = await import("@huggingface/hub");
  return await callHub(connection, subject, async () => {
    const files: HubFile[] = [];
    const pages = listFiles({ ...connection.access, repo, revision: commit, recursive: true, fetch });
    for await (const item of pages) {
      const entry = Entry.safeParse(item);
      if (!entry.success) {
        throw new IsologitError(
          "NETWORK",
          `the Hub's listing has an unexpected form: ${entry.error.issues[0]?.message}`,
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
    return validateFiles(files, repo);
  });
}
