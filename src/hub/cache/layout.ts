/**
 * The Hub's cache, as Python's huggingface_hub lays it out:
 *
 *   models--owner--name/blobs/ETAG             bytes, named by their digest
 *   models--owner--name/snapshots/COMMIT/PATH  a link to a blob, or a copy where links cannot be made
 *   models--owner--name/refs/REVISION          the commit that a branch or tag had when it was last asked
 *   models--owner--name/trees/COMMIT.json      every file of a commit, so that a snapshot is known to be whole
 *   .locks/models--owner--name/ETAG.…          who is fetching a blob
 */
import { join } from "node:path";

export interface RepoFolder {
  readonly repo: string;
  readonly root: string;
  readonly locks: string;
}

export function repoFolder(cache: string, repo: string): RepoFolder {
  const name = `models--${repo.replace("/", "--")}`;
  return { repo, root: join(cache, name), locks: join(cache, ".locks", name) };
}

/** The repository of a folder of the cache; undefined for datasets, spaces and strangers. */
export function repoOf(folder: string): string | undefined {
  const [, owner, name] = /^models--(.+?)--(.+)$/.exec(folder) ?? [];
  return owner === undefined ? undefined : `${owner}/${name}`;
}

export const blobPath = ({ root }: RepoFolder, etag: string): string => join(root, "blobs", etag);
export const incompletePath = (folder: RepoFolder, etag: string): string =>
  `${blobPath(folder, etag)}.incomplete`;
export const snapshotPath = ({ root }: RepoFolder, commit: string): string => join(root, "snapshots", commit);
export const refPath = ({ root }: RepoFolder, revision: string): string => join(root, "refs", revision);
export const treePath = (root: string, commit: string): string => join(root, "trees", `${commit}.json`);

/** Forty hexadecimal digits name a commit, and nothing else does. */
export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/.test(revision);
