/** `download`: fetches files of a repository into the cache or into a folder. */
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import { repoFolder, snapshotPath } from "../hub/cache/layout.ts";
import { saveListing, writeTree } from "../hub/cache/tree.ts";
import { connect } from "../hub/connection.ts";
import type { HubFile, Listing } from "../hub/files.ts";
import { pathFilter } from "../hub/path-patterns.ts";
import { fetchBlob, isCached } from "../hub/read/blob.ts";
import { listRevision } from "../hub/read/listing.ts";
import { fetchToFolder, isInFolder, notesFolder } from "../hub/read/local-folder.ts";
import { type HubSettings, hubSettings } from "../hub/settings.ts";
import { repoName, revisionName } from "../io/address.ts";
import { makeFolders } from "../io/folders.ts";

export interface DownloadOptions {
  /** paths in the repository; not together with `include` or `exclude` */
  readonly files?: readonly string[];
  /** patterns of the paths to fetch; default: every file */
  readonly include?: readonly string[];
  /** patterns of the paths to leave out */
  readonly exclude?: readonly string[];
  /** a branch, a tag or a commit; default `main` */
  readonly revision?: string;
  /** fetch and write nothing, and report what a run would fetch */
  readonly dryRun?: boolean;
  /** folder to write to; default: the cache */
  readonly localDir?: string;
  /** access token; default: the token of the environment */
  readonly token?: string;
  /** default: read from the environment */
  readonly settings?: HubSettings;
  readonly watch?: Watch;
  readonly signal?: AbortSignal;
}

export interface DownloadReport {
  readonly repo: string;
  readonly revision: string;
  readonly commit: string;
  /** path of the snapshot or the folder; of the file, if `files` names one file */
  readonly path: string;
  readonly files: readonly { readonly path: string; readonly size: number; readonly fetched: number }[];
  /** size of all files */
  readonly bytes: number;
  /** bytes that this run received over the network; of a dry run, those that a run would receive at most */
  readonly fetched: number;
  /** nothing was fetched, and `fetched` says what would be */
  readonly dryRun: boolean;
  readonly seconds: number;
}

/** Files that are fetched at the same time; the Python client of the Hub uses the same number. */
const FILES_AT_ONCE = 8;

/**
 * Fetches files of a repository of the Hub. Files that are in the cache already are not fetched again.
 *
 * @param repository `owner/name`
 * @param options files or patterns, revision, folder
 * @returns the path of the files, and for each file the bytes that were received
 * @throws USAGE, NOT_FOUND, ACCESS_REFUSED, NETWORK, OFFLINE, TRANSFER_DAMAGED, LISTING_UNSAFE, DISK_FULL, INTERRUPTED
 * @example
 * const { path } = await download("nvidia/Nemotron-H-8B-Base-8K", { include: ["*.json"] });
 */
export async function download(repository: string, options: DownloadOptions = {}): Promise<DownloadReport> {
  const started = performance.now();
  const repo = repoName(repository);
  const revision = revisionName(options.revision ?? "main");
  const { files = [], include = [], exclude = [], dryRun = false, localDir, signal } = options;
  const { watch = ignoreEvents } = options;
  if (files.length > 0 && include.length + exclude.length > 0) {
    throw new IsologitError("USAGE", "files and patterns were both given, expected one of them");
  }
  const connection = await connect(
    options.settings ?? (await hubSettings(process.env, options.token, options.watch)),
  );
  const listing = await listRevision(connection, repo, revision, signal);
  const wanted =
    files.length > 0
      ? filesNamed(listing, files)
      : listing.files.filter(({ path }) => pathFilter({ include, exclude })(path));
  if (wanted.length === 0) {
    throw new IsologitError(
      "NOT_FOUND",
      "no file of the repository matches",
      { file: `hf://${repo}` },
      {
        next: "check `include` and `exclude`; a `*` matches folders too",
      },
    );
  }
  const bytes = wanted.reduce((sum, { size }) => sum + size, 0);
  const root = localDir === undefined ? undefined : resolve(localDir);
  const top = root ?? snapshotPath(repoFolder(connection.settings.cache, repo), listing.commit);
  const report = (done: DownloadReport["files"]): DownloadReport => ({
    ...{ repo, revision, commit: listing.commit, path: files.length === 1 ? join(top, files[0]!) : top },
    files: done,
    bytes,
    fetched: done.reduce((sum, file) => sum + file.fetched, 0),
    dryRun,
    seconds: (performance.now() - started) / 1000,
  });
  if (dryRun) {
    const done = wanted.map(async (file) => {
      const isHere =
        (root !== undefined && (await isInFolder(file, root, signal))) ||
        (await isCached(connection, listing, file));
      return { path: file.path, size: file.size, fetched: isHere ? 0 : file.size };
    });
    return report(await Promise.all(done));
  }
  watch({ type: "phase", phase: "download", totalBytes: bytes });
  await (root === undefined ? saveListing(connection, listing) : noteFolder(root, listing));

  const over = new AbortController();
  const ends = signal === undefined ? over.signal : AbortSignal.any([signal, over.signal]);
  const fetchOne = async (file: HubFile) => {
    const how = {
      signal: ends,
      advance: (count: number) => watch({ type: "advance", phase: "download", bytes: count }),
      waiting: ({ path }: HubFile) =>
        watch({ type: "warning", message: `${path} is being fetched by another process; waited for it` }),
    };
    const done = await (root === undefined
      ? fetchBlob(connection, listing, file, how)
      : fetchToFolder(connection, listing, file, root, how));
    watch({ type: "file", path: file.path, bytes: file.size, fetched: done.bytes });
    return { path: file.path, size: file.size, fetched: done.bytes };
  };
  return report(await eachOf(wanted, FILES_AT_ONCE, fetchOne, over));
}

function filesNamed(listing: Listing, names: readonly string[]): readonly HubFile[] {
  const files = new Map(listing.files.map((file) => [file.path, file]));
  return [...new Set(names)].map((name) => {
    const file = files.get(name);
    if (file !== undefined) return file;
    throw new IsologitError(
      "NOT_FOUND",
      `${listing.repo} has no such file`,
      { file: name },
      {
        next: "check the name; `include` takes patterns",
      },
    );
  });
}

/** Writes the notes of a download into a folder that git ignores. */
async function noteFolder(root: string, { commit, files }: Listing): Promise<void> {
  const notes = notesFolder(root);
  try {
    await makeFolders(notes);
    await writeFile(join(notes, ".gitignore"), "*");
  } catch (error) {
    throw systemError(error, { file: root });
  }
  await writeTree(notes, commit, files);
}

/** Results in the order of `items`. The first failure stops the other items and is thrown. */
async function eachOf<T, R>(
  items: readonly T[],
  atOnce: number,
  work: (item: T) => Promise<R>,
  over: AbortController,
): Promise<readonly R[]> {
  const results: R[] = [];
  const failures: unknown[] = [];
  let next = 0;
  const run = async () => {
    while (next < items.length && failures.length === 0) {
      const at = next++;
      try {
        results[at] = await work(items[at]!);
      } catch (error) {
        failures.push(error);
        over.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, run));
  if (failures.length > 0) throw failures[0];
  return results;
}
