/**
 * Paths in the cache of the Hub, the same as in Python's huggingface_hub:
 *
 *   models--owner--name/blobs/ETAG             bytes, named by their digest
 *   models--owner--name/snapshots/COMMIT/PATH  a link to a blob, or a copy where links cannot be made
 *   models--owner--name/refs/REVISION          the commit of a branch or tag at the last request
 *   models--owner--name/trees/COMMIT.json      the list of files of a commit: shows whether a snapshot is complete
 *   .locks/models--owner--name/ETAG.…          lock of the process that downloads a blob
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

/** The repository of a folder in the cache; undefined for datasets, spaces and other folders. */
export function repoOfFolder(folder: string): string | undefined {
  const [, owner, name] = /^models--(.+?)--(.+)$/.exec(folder) ?? [];
  return owner === undefined ? undefined : `${owner}/${name}`;
}

export const blobPath = ({ root }: RepoFolder, etag: string): string => join(root, "blobs", etag);
export const incompletePath = (folder: RepoFolder, etag: string): string =>
  `${blobPath(folder, etag)}.incomplete`;
export const snapshotPath = ({ root }: RepoFolder, commit: string): string => join(root, "snapshots", commit);
export const refPath = ({ root }: RepoFolder, revision: string): string => join(root, "refs", revision);
export const treePath = (root: string, commit: string): string => join(root, "trees", `${commit}.json`);

/** A revision of forty hexadecimal digits is a commit; every other one is a branch or a tag. */
export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/.test(revision);
