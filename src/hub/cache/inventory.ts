/** Contents of the cache: repositories, their snapshots, blobs and refs. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { IsologitError, systemError } from "../../core/errors.ts";
import { repoName } from "../../io/address.ts";
import type { HubFile } from "../files.ts";
import { blobPath, isCommit, type RepoFolder, repoFolder, repoOfFolder, snapshotPath } from "./layout.ts";
import { readTree } from "./tree.ts";

export interface CachedRevision {
  readonly commit: string;
  readonly refs: readonly string[];
  readonly files: number;
  readonly bytes: number;
  /** whether every file of the commit is in the cache; null if the list of its files is missing */
  readonly whole: boolean | null;
}

export interface CachedRepo {
  readonly repo: string;
  readonly path: string;
  /** of the blobs, each counted once */
  readonly bytes: number;
  readonly incompleteBytes: number;
  readonly revisions: readonly CachedRevision[];
}

/** @throws NOT_FOUND if `repo` is not in the cache */
export async function listRepoFolders(cache: string, repo?: string): Promise<readonly RepoFolder[]> {
  if (repo !== undefined) {
    const folder = repoFolder(cache, repoName(repo));
    if (await stat(folder.root).catch(() => undefined)) return [folder];
    throw new IsologitError(
      "NOT_FOUND",
      `${repo} is not in the cache`,
      { file: cache },
      { next: "see `isologit cache ls`" },
    );
  }
  return (await listNames(cache)).flatMap((name) => {
    const known = repoOfFolder(name);
    return known === undefined ? [] : [repoFolder(cache, known)];
  });
}

export async function describeRepo(folder: RepoFolder): Promise<CachedRepo> {
  const refs = [...(await readRefs(folder))];
  const revisions = await Promise.all(
    (await listNames(join(folder.root, "snapshots"))).map(async (commit) => {
      const root = snapshotPath(folder, commit);
      const paths = await listFilesBelow(root);
      const sizes = await Promise.all(
        paths.map((path) =>
          stat(path).then(
            ({ size }) => size,
            () => undefined,
          ),
        ),
      );
      const present = new Set(
        paths
          .filter((_, at) => sizes[at] !== undefined)
          .map((path) => relative(root, path).split(sep).join("/")),
      );
      const tree = await readTree(folder.root, commit);
      return {
        commit,
        refs: refs.filter(([, to]) => to === commit).map(([ref]) => ref),
        files: paths.length,
        bytes: sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0),
        whole: tree === undefined ? null : tree.every(({ path }) => present.has(path)),
      };
    }),
  );
  const blobs = await listBlobs(folder);
  const bytesOf = (partial: boolean) =>
    blobs.reduce((sum, blob) => sum + (blob.partial === partial ? blob.size : 0), 0);
  return {
    repo: folder.repo,
    path: folder.root,
    bytes: bytesOf(false),
    incompleteBytes: bytesOf(true),
    revisions,
  };
}

/** The path of a file in the cache, if it has the size of the listing; else undefined. */
export async function findCachedFile(
  folder: RepoFolder,
  commit: string,
  file: HubFile,
): Promise<string | undefined> {
  for (const path of [join(snapshotPath(folder, commit), file.path), blobPath(folder, file.etag)]) {
    const about = await stat(path).catch(() => undefined);
    if (about?.isFile() && about.size === file.size) return path;
  }
  return undefined;
}

/** The blobs of a repository; `partial` if a blob is incomplete. */
export async function listBlobs({ root }: RepoFolder) {
  const folder = join(root, "blobs");
  const names = await listNames(folder);
  return await Promise.all(
    names.map(async (name) => {
      const path = join(folder, name);
      const { size } = await stat(path);
      return { path, name, size, partial: !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(name) };
    }),
  );
}

/** The commit of each ref. */
export async function readRefs({ root }: RepoFolder): Promise<ReadonlyMap<string, string>> {
  const folder = join(root, "refs");
  const refs = new Map<string, string>();
  for (const path of await listFilesBelow(folder)) {
    const commit = (await readFile(path, "utf8")).trim();
    if (isCommit(commit)) refs.set(relative(folder, path).split(sep).join("/"), commit);
  }
  return refs;
}

/** The names in a folder, sorted; none if the folder is missing. */
export async function listNames(folder: string): Promise<readonly string[]> {
  return await readdir(folder).then(
    (names) => names.filter((name) => !name.startsWith(".") && !name.endsWith(".tmp")).sort(),
    (error) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
      throw systemError(error, { file: folder });
    },
  );
}

/** The files below a folder, and the links, broken ones included. */
export async function listFilesBelow(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((error) => {
    if (error.code === "ENOENT") return [];
    throw systemError(error, { file: folder });
  });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}
