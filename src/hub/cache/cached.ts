/** What lies in the cache: repositories, their snapshots, blobs and refs. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { IsologitError, systemError } from "../../core/errors.ts";
import { repoName } from "../../io/address.ts";
import { readTree } from "../listing.ts";
import { isCommit, type RepoFolder, repoFolder, repoOf, snapshotPath } from "./layout.ts";

export interface CachedRevision {
  readonly commit: string;
  readonly refs: readonly string[];
  readonly files: number;
  readonly bytes: number;
  /** every file of the commit is here; null where nobody noted what it has */
  readonly whole: boolean | null;
}

export interface CachedRepo {
  readonly repo: string;
  readonly path: string;
  /** of blobs, each counted once */
  readonly bytes: number;
  readonly incompleteBytes: number;
  readonly revisions: readonly CachedRevision[];
}

/** @throws NOT_FOUND where `repo` is not here */
export async function foldersOf(cache: string, repo?: string): Promise<readonly RepoFolder[]> {
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
  return (await namesIn(cache)).flatMap((name) => {
    const known = repoOf(name);
    return known === undefined ? [] : [repoFolder(cache, known)];
  });
}

export async function describe(folder: RepoFolder): Promise<CachedRepo> {
  const refs = [...(await refsOf(folder))];
  const revisions = await Promise.all(
    (await namesIn(join(folder.root, "snapshots"))).map(async (commit) => {
      const root = snapshotPath(folder, commit);
      const paths = await filesBelow(root);
      const sizes = await Promise.all(
        paths.map((path) =>
          stat(path).then(
            ({ size }) => size,
            () => undefined,
          ),
        ),
      );
      const here = new Set(
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
        whole: tree === undefined ? null : tree.every(({ path }) => here.has(path)),
      };
    }),
  );
  const blobs = await blobsOf(folder);
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

/** Blobs, and the parts of those that are not whole yet. */
export async function blobsOf({ root }: RepoFolder) {
  const folder = join(root, "blobs");
  const names = await namesIn(folder);
  return await Promise.all(
    names.map(async (name) => {
      const path = join(folder, name);
      const { size } = await stat(path);
      return { path, name, size, partial: !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(name) };
    }),
  );
}

/** Commits by ref. */
export async function refsOf({ root }: RepoFolder): Promise<ReadonlyMap<string, string>> {
  const folder = join(root, "refs");
  const refs = new Map<string, string>();
  for (const path of await filesBelow(folder)) {
    const commit = (await readFile(path, "utf8")).trim();
    if (isCommit(commit)) refs.set(relative(folder, path).split(sep).join("/"), commit);
  }
  return refs;
}

/** Sorted; none where there is no such folder. */
export async function namesIn(folder: string): Promise<readonly string[]> {
  return await readdir(folder).then(
    (names) => names.filter((name) => !name.startsWith(".") && !name.endsWith(".tmp")).sort(),
    (error) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
      throw systemError(error, { file: folder });
    },
  );
}

/** Files, and links whether they lead somewhere or not. */
export async function filesBelow(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch((error) => {
    if (error.code === "ENOENT") return [];
    throw systemError(error, { file: folder });
  });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}
