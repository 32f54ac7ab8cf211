/** `cache ls|verify|rm`: what of the Hub is here, whether it is what it was, and away with it. */
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
  /** default: of the environment */
  readonly settings?: HubSettings;
  readonly signal?: AbortSignal;
}

export interface CacheReport {
  readonly path: string;
  readonly bytes: number;
  readonly repos: readonly CachedRepo[];
}

/** @param repo leaves out the others */
export async function cacheLs(repo?: string, options: CacheOptions = {}): Promise<CacheReport> {
  const { cache } = await settingsOf(options);
  const repos = await Promise.all((await listRepoFolders(cache, repo)).map(describeRepo));
  return { path: cache, bytes: repos.reduce((sum, one) => sum + one.bytes + one.incompleteBytes, 0), repos };
}

export interface CacheFinding {
  /** a ref that leads to nothing is what a download leaves that broke off before its first file */
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

/** Reads every blob and holds it against its name; looks where every link and every ref leads. */
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
      if (digest !== blob.name) found("digest", blob.path, `its digest is ${digest}, its name says another`);
    }
    const commits = await listNames(join(folder.root, "snapshots"));
    for (const commit of commits) {
      for (const path of await listFilesBelow(snapshotPath(folder, commit))) {
        const there = await stat(path).catch(() => undefined);
        if (there === undefined)
          found("dangling", path, `it leads to ${await readlink(path)}, which is not there`);
      }
    }
    for (const [ref, commit] of await readRefs(folder)) {
      if (!commits.includes(commit))
        found("ref", join(folder.root, "refs", ref), `no file of commit ${commit} is here`);
    }
  }
  return { ok: findings.every(({ severity }) => severity === "warning"), blobs, bytes, findings };
}

export interface CacheRmReport {
  /** `owner/name`, or `owner/name@commit` */
  readonly removed: readonly string[];
  readonly bytes: number;
}

/**
 * Takes away a repository, or with `owner/name@revision` one snapshot and the blobs that no other needs.
 *
 * @throws USAGE, NOT_FOUND
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
  const one = before.revisions.find(({ commit, refs }) => commit === revision || refs.includes(revision));
  if (one === undefined) {
    throw new IsologitError(
      "NOT_FOUND",
      `no snapshot of revision ${revision} is here`,
      { file: folder!.root },
      {
        next: "see `isologit cache ls`",
      },
    );
  }
  await removeRevision(folder!, one);
  if (before.revisions.length === 1) {
    for (const path of [folder!.root, folder!.locks]) await rm(path, { recursive: true, force: true });
    return { removed: [`${repo}@${one.commit}`], bytes: before.bytes + before.incompleteBytes };
  }
  return { removed: [`${repo}@${one.commit}`], bytes: before.bytes - (await describeRepo(folder!)).bytes };
}

/** Refs first: one that leads nowhere would be worse than a snapshot that none leads to. */
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
