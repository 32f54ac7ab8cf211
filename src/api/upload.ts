/**
 * `upload`: sends a file or a folder to a repository. The Hub library selects the files for LFS, sends the missing files
 * and commits. This file decides which files to send, in how many commits, and how an interrupted upload continues.
 */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { CARD_FILE } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import { connect, offlineError } from "../hub/connection.ts";
import { type HubSettings, hubSettings } from "../hub/settings.ts";
import { commitFiles, ensureBranch, type UploadState } from "../hub/upload/commits.ts";
import { journalPath, readJournal, removeJournal } from "../hub/upload/journal.ts";
import { isUnchanged, type LocalFile, listLocalFiles } from "../hub/upload/local-files.ts";
import { repoName, revisionName } from "../io/address.ts";
import { cardFile } from "../model-card/file.ts";
import { inspect } from "./inspect.ts";

export interface UploadOptions {
  /** path in the repository; default: the root for a folder, the name of the file for a file */
  readonly pathInRepo?: string;
  /** patterns of the paths to send; default: every file */
  readonly include?: readonly string[];
  /** patterns of the paths to leave out */
  readonly exclude?: readonly string[];
  /** a branch, created if it does not exist; default `main` */
  readonly revision?: string;
  /** create the repository as private, if it does not exist */
  readonly private?: boolean;
  readonly commitMessage?: string;
  /** open a pull request instead of a commit to the branch */
  readonly createPr?: boolean;
  /** repository of the source, for the model card; default: the source in the certificate */
  readonly baseModel?: string;
  /** licence for the model card, by its id on the Hub, such as "apache-2.0"; default: what the card says */
  readonly license?: string;
  readonly token?: string;
  readonly settings?: HubSettings;
  /** largest number of files in a commit; default 50 */
  readonly commitFiles?: number;
  /** largest size of a commit; default 10 GB */
  readonly commitBytes?: number;
  readonly watch?: Watch;
  readonly signal?: AbortSignal;
}

export interface UploadReport {
  readonly repo: string;
  readonly revision: string;
  readonly url: string;
  /** commits of this run, in order */
  readonly commits: readonly string[];
  readonly pullRequest: string | null;
  /** `sent` is false for a file that the repository had already */
  readonly files: readonly { readonly path: string; readonly size: number; readonly sent: boolean }[];
  /** size of all files */
  readonly bytes: number;
  /** bytes that this run sent */
  readonly sent: number;
  /** a model card was written */
  readonly card: boolean;
  /** verdict of the certificate of the uploaded files, as in the model card; null without a certificate */
  readonly verdict: "same" | "within" | null;
  readonly seconds: number;
}

/** The Hub recommends these for large folders; a commit of thousands of files reaches the Hub's timeout. */
const COMMIT_FILES = 50;
const COMMIT_BYTES = 10e9;

/** What a card lacks, and the option that brings it. */
const MISSING = {
  license: { what: "licence", option: "license" },
  base_model: { what: "base model", option: "baseModel" },
} as const;

/** @throws USAGE for a text that is no id of a licence */
function licenseId(text: string | undefined): string | undefined {
  if (text === undefined || /^[a-z0-9][a-z0-9.-]{1,63}$/.test(text)) return text;
  const message = `\`license\` is ${JSON.stringify(text)}, expected an id as the Hub lists them`;
  throw new IsologitError("USAGE", message, {}, { next: "give an id such as apache-2.0, or other" });
}

/**
 * @throws USAGE if the path in the repository is that of another local file: a shell has replaced a pattern by the names of
 *   files
 */
function refuseLocalFile(path: string, { pathInRepo }: UploadOptions): void {
  if (pathInRepo === undefined || resolve(pathInRepo) === resolve(path)) return;
  if (statSync(pathInRepo, { throwIfNoEntry: false })?.isFile() !== true) return;
  const message = `PATH_IN_REPO is ${JSON.stringify(pathInRepo)}, a file on this machine; a shell puts names of files in place of a pattern without quotes`;
  const next = `write patterns in quotes, such as '*.log', or PATH_IN_REPO with a leading /`;
  throw new IsologitError("USAGE", message, {}, { next });
}

/**
 * Sends a file or a folder to a repository of the Hub. Files that the repository has already are not sent again.
 *
 * @param repository `owner/name`, created if it does not exist
 * @param path file or folder on this machine
 * @param options path and branch in the repository, patterns, commits, model card
 * @returns the commits, and for each file whether it was sent
 * @throws USAGE, NOT_FOUND, ACCESS_REFUSED, NETWORK, OFFLINE, INTERRUPTED; CONFIG_INVALID: the model card cannot be read
 * @example
 * const { url, verdict } = await upload("me/nemotron-h-8b-fp8", "./nemotron-h-8b-fp8", { private: true });
 */
export async function upload(
  repository: string,
  path: string,
  options: UploadOptions = {},
): Promise<UploadReport> {
  const started = performance.now();
  const repo = repoName(repository);
  const revision = revisionName(options.revision ?? "main");
  const { watch = ignoreEvents, signal } = options;
  const settings = options.settings ?? (await hubSettings(process.env, options.token, options.watch));
  const at = { file: `hf://${repo}` };
  if (settings.offline) throw offlineError(at);
  if (settings.token === undefined) throw new IsologitError("ACCESS_REFUSED", "an upload needs a token", at);
  const connection = await connect(settings);

  refuseLocalFile(path, options);
  const inRepo = (options.pathInRepo ?? "").replace(/^\.?\/+|^\.$|\/+$/g, "");
  const local = await listLocalFiles(path, inRepo, options);
  const journal = await readJournal(
    journalPath(settings.home, [
      settings.endpoint,
      repo,
      revision,
      resolve(path),
      inRepo,
      String(options.createPr ?? false),
    ]),
  );
  const branch = journal.opened?.branch ?? revision;
  const before = await ensureBranch(connection, repo, branch, options);
  const card = await cardFile(connection, before, path, local, {
    inRepo,
    baseModel: options.baseModel,
    license: licenseId(options.license),
    inspect: (checkpoint) => inspect(checkpoint),
    watch,
    signal,
  });
  for (const key of card?.missing ?? []) {
    const message = `the model card names no ${MISSING[key].what}: give \`${MISSING[key].option}\``;
    watch({ type: "warning", message });
  }
  const wanted = card === undefined ? local : [...local.filter((file) => file.path !== CARD_FILE), card.file];

  const bytes = wanted.reduce((sum, { size }) => sum + size, 0);
  watch({ type: "phase", phase: "upload", totalBytes: bytes });
  const there = new Map(before.files.map((file) => [file.path, file]));
  const files: { path: string; size: number; sent: boolean }[] = [];
  const report = (file: LocalFile, sent: boolean) => {
    files.push({ path: file.path, size: file.size, sent });
    watch({ type: "advance", phase: "upload", bytes: file.size });
    watch({ type: "file", path: file.path, bytes: file.size, fetched: sent ? file.size : 0 });
  };
  const missing: LocalFile[] = [];
  for (const file of wanted) {
    signal?.throwIfAborted();
    if (await isUnchanged(file, there.get(file.path), journal.sent.get(file.path), signal))
      report(file, false);
    else missing.push(file);
  }

  const parts = partsOf(missing, options.commitFiles ?? COMMIT_FILES, options.commitBytes ?? COMMIT_BYTES);
  const sending: UploadState = {
    connection,
    repo,
    journal: journal.path,
    createPr: options.createPr ?? false,
    signal,
    branch,
    pullRequest: journal.opened,
    commits: [],
  };
  for (const [i, part] of parts.entries()) {
    const title =
      options.commitMessage ??
      `Upload ${wanted.length} ${wanted.length === 1 ? "file" : "files"} with isologit`;
    await commitFiles(
      sending,
      part,
      parts.length === 1 ? title : `${title} (part ${i + 1} of ${parts.length})`,
    );
    for (const file of part) report(file, true);
  }
  await removeJournal(journal.path).catch((error) => {
    const message = `${journal.path} is no longer needed, but could not be removed: ${error.message}`;
    watch({ type: "warning", message });
  });
  return {
    repo,
    revision,
    url: `${settings.endpoint}/${repo}`,
    commits: sending.commits,
    pullRequest: sending.pullRequest?.pullRequest ?? null,
    files,
    bytes,
    sent: files.reduce((sum, { size, sent }) => sum + (sent ? size : 0), 0),
    card: card !== undefined,
    verdict: card?.verdict ?? null,
    seconds: (performance.now() - started) / 1000,
  };
}

/** Splits files into commits. The card is last, so that an interrupted upload does not describe missing files. */
function partsOf(
  files: readonly LocalFile[],
  maxFiles: number,
  maxBytes: number,
): readonly (readonly LocalFile[])[] {
  const ordered = [
    ...files.filter(({ path }) => path !== CARD_FILE),
    ...files.filter(({ path }) => path === CARD_FILE),
  ];
  const parts: LocalFile[][] = [];
  let bytes = 0;
  for (const file of ordered) {
    const part = parts.at(-1);
    if (part === undefined || part.length >= maxFiles || bytes + file.size > maxBytes) {
      parts.push([file]);
      bytes = file.size;
    } else {
      part.push(file);
      bytes += file.size;
    }
  }
  return parts;
}
