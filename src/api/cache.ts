/** `cache ls|verify|rm`: lists, verifies and removes repositories in the local cache of the Hub. */
import { readlink, realpath, rm, stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { IsologitError } from "../core/errors.ts";
import {
  type CachedRepo,
  type CachedRevision,
  describeRepo,
  listBlobs,
  listFilesBelow,
  listNames,
  listRepoFolders,
  readRefs,
} from "../hub/cache/inventory.ts";
import { type RepoFolder, snapshotPath } from "../hub/cache/layout.ts";
import { digestOfFile } from "../hub/digest.ts";
import { type HubSettings, hubSettings } from "../hub/settings.ts";
import { repoName } from "../io/address.ts";

export interface CacheOptions {
  /** default: read from the environment */
  readonly settings?: HubSettings;
  readonly signal?: AbortSignal;
}

export interface CacheReport {
  /** folder of the cache */
  readonly path: string;
  /** size of all repositories, with unfinished downloads */
  readonly bytes: number;
  readonly repos: readonly CachedRepo[];
}

/**
 * Lists the repositories in the cache, with their revisions and sizes.
 *
 * @param repo `owner/name`: only this repository; default: every repository
 * @param options settings of the Hub and an abort signal
 * @returns the folder of the cache, the size in bytes and one entry for each repository
 * @throws NOT_FOUND: the cache does not contain `repo`
 * @example
 * const { repos, bytes } = await cacheLs();
 */
export async function cacheLs(repo?: string, options: CacheOptions = {}): Promise<CacheReport> {
  const { cache } = await settingsOf(options);
  const repos = await Promise.all((await listRepoFolders(cache, repo)).map(describeRepo));
  return {
    path: cache,
    bytes: repos.reduce((sum, entry) => sum + entry.bytes + entry.incompleteBytes, 0),
    repos,
  };
}

interface CacheFinding {
  /** `ref`: a ref without a snapshot; a download that stopped before the first file leaves one */
  readonly rule: "digest" | "dangling" | "ref";
  readonly severity: "error" | "warning";
  readonly at: { readonly file: string };
  readonly message: string;
}

export interface CacheVerifyReport {
  readonly ok: boolean;
  readonly blobs: number;
  readonly bytes: number;
  readonly findings: readonly CacheFinding[];
}

/**
 * Verifies the cache: compares the digest of each blob with its name, and checks the target of each link and each ref.
 *
 * @param repo `owner/name`: only this repository; default: every repository
 * @param options settings of the Hub and an abort signal
 * @returns the number and size of the blobs that were read, and one finding for each fault
 * @throws NOT_FOUND: the cache does not contain `repo`
 * @example
 * const { ok, findings } = await cacheVerify("nvidia/Nemotron-H-8B-Base-8K");
 */
export async function cacheVerify(repo?: string, options: CacheOptions = {}): Promise<CacheVerifyReport> {
  const { cache } = await settingsOf(options);
  const findings: CacheFinding[] = [];
  let [blobs, bytes] = [0, 0];
  for (const folder of await listRepoFolders(cache, repo)) {
    const found = (rule: CacheFinding["rule"], file: string, message: string) =>
      findings.push({
        rule,
        severity: rule === "ref" ? "warning" : "error",
        at: { file: relative(cache, file) },
        message,
      });
    for (const blob of await listBlobs(folder)) {
      if (blob.partial) continue;
      blobs++;
      bytes += blob.size;
      const digest = await digestOfFile(blob.path, { etag: blob.name, size: blob.size }, options.signal);
      if (digest !== blob.name)
        found("digest", blob.path, `the digest is ${digest}, and the file name is another digest`);
    }
    const commits = await listNames(join(folder.root, "snapshots"));
    for (const commit of commits) {
      for (const path of await listFilesBelow(snapshotPath(folder, commit))) {
        const there = await stat(path).catch(() => undefined);
        if (there === undefined)
          found("dangling", path, `the link points to ${await readlink(path)}, which does not exist`);
      }
    }
    for (const [ref, commit] of await readRefs(folder)) {
      if (!commits.includes(commit))
        found("ref", join(folder.root, "refs", ref), `the cache has no file of commit ${commit}`);
    }
  }
  return { ok: findings.every(({ severity }) => severity === "warning"), blobs, bytes, findings };
}

export interface CacheRmReport {
  /** `owner/name`, or `owner/name@commit` */
  readonly removed: readonly string[];
  /** freed on the disk */
  readonly bytes: number;
}

/**
 * Removes a repository from the cache, or one snapshot with the blobs that no other snapshot uses.
 *
 * @param target `owner/name`, or `owner/name@revision` for one snapshot
 * @param options settings of the Hub
 * @returns the names that were removed and the bytes that were freed
 * @throws USAGE: `target` is not a name of this form; NOT_FOUND: the cache does not contain the repository or the revision
 * @example
 * await cacheRm("nvidia/Nemotron-H-8B-Base-8K@main");
 */
export async function cacheRm(target: string, options: CacheOptions = {}): Promise<CacheRmReport> {
  const { cache } = await settingsOf(options);
  const [name = "", revision] = target.split(/@(.*)/s);
  const repo = repoName(name);
  const [folder] = await listRepoFolders(cache, repo);
  const before = await describeRepo(folder!);
  if (revision === undefined) {
    for (const path of [folder!.root, folder!.locks]) await rm(path, { recursive: true, force: true });
    return { removed: [repo], bytes: before.bytes + before.incompleteBytes };
  }
  const selected = before.revisions.find(
    ({ commit, refs }) => commit === revision || refs.includes(revision),
  );
  if (selected === undefined) {
    throw new IsologitError(
      "NOT_FOUND",
      `the cache has no snapshot of revision ${revision}`,
      { file: folder!.root },
      {
        next: "see `isologit cache ls`",
      },
    );
  }
  await removeRevision(folder!, selected);
  if (before.revisions.length === 1) {
    for (const path of [folder!.root, folder!.locks]) await rm(path, { recursive: true, force: true });
    return { removed: [`${repo}@${selected.commit}`], bytes: before.bytes + before.incompleteBytes };
  }
  return {
    removed: [`${repo}@${selected.commit}`],
    bytes: before.bytes - (await describeRepo(folder!)).bytes,
  };
}

/** Removes the refs first: if the removal stops half-way, no ref points to a missing snapshot. */
async function removeRevision(folder: RepoFolder, { commit, refs }: CachedRevision): Promise<void> {
  for (const ref of refs) await rm(join(folder.root, "refs", ref), { force: true });
  await rm(join(folder.root, "trees", `${commit}.json`), { force: true });
  await rm(snapshotPath(folder, commit), { recursive: true, force: true });
  const used = new Set<string>();
  for (const other of await listNames(join(folder.root, "snapshots"))) {
    for (const path of await listFilesBelow(snapshotPath(folder, other)))
      used.add(await realpath(path).catch(() => path));
  }
  for (const blob of await listBlobs(folder)) {
    if (!blob.partial && !used.has(await realpath(blob.path))) await rm(blob.path);
  }
}

const settingsOf = async ({ settings }: CacheOptions): Promise<HubSettings> =>
  settings ?? (await hubSettings());
