/**
 * `upload`: a file or a folder into a repository. Transport is the library's: it asks which files go to LFS, sends
 * those the Hub lacks, and commits. Here it is decided what has to be sent at all, in how many commits, and how a
 * broken upload goes on.
 */
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
  /** where in the repository; default: its root for a folder, the file's name for a file */
  readonly pathInRepo?: string;
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
  /** a branch; made if it is not there */
  readonly revision?: string;
  /** of a repository that is made now */
  readonly private?: boolean;
  readonly commitMessage?: string;
  readonly createPr?: boolean;
  /** what was converted, for the card; default: what the certificate says */
  readonly baseModel?: string;
  readonly token?: string;
  readonly settings?: HubSettings;
  /** default 50 files and 10 GB a commit */
  readonly commitFiles?: number;
  readonly commitBytes?: number;
  readonly watch?: Watch;
  readonly signal?: AbortSignal;
}

export interface UploadReport {
  readonly repo: string;
  readonly revision: string;
  readonly url: string;
  /** made by this run, in order */
  readonly commits: readonly string[];
  readonly pullRequest: string | null;
  /** `sent` is false for what the repository had already */
  readonly files: readonly { readonly path: string; readonly size: number; readonly sent: boolean }[];
  readonly bytes: number;
  readonly sent: number;
  readonly card: boolean;
  /** the verdict of a certificate that holds for what was uploaded, as the card says it; null where nothing was proved */
  readonly verdict: "same" | "within" | null;
  readonly seconds: number;
}

/** The Hub's advice for large folders; one commit of thousands of files runs into its timeout. */
const COMMIT_FILES = 50;
const COMMIT_BYTES = 10e9;

/** @throws USAGE, NOT_FOUND, ACCESS_REFUSED, NETWORK, OFFLINE, CONFIG_INVALID for a broken card, INTERRUPTED */
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
  const connection = connect(settings);

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
    inspect: (checkpoint) => inspect(checkpoint),
    watch,
    signal,
  });
  const wanted = card === undefined ? local : [...local.filter((one) => one.path !== CARD_FILE), card.file];

  const bytes = wanted.reduce((sum, { size }) => sum + size, 0);
  watch({ type: "phase", phase: "upload", totalBytes: bytes });
  const there = new Map(before.files.map((file) => [file.path, file]));
  const files: { path: string; size: number; sent: boolean }[] = [];
  const tell = (one: LocalFile, sent: boolean) => {
    files.push({ path: one.path, size: one.size, sent });
    watch({ type: "advance", phase: "upload", bytes: one.size });
    watch({ type: "file", path: one.path, bytes: one.size, fetched: sent ? one.size : 0 });
  };
  const missing: LocalFile[] = [];
  for (const one of wanted) {
    signal?.throwIfAborted();
    if (await isUnchanged(one, there.get(one.path), journal.sent.get(one.path), signal)) tell(one, false);
    else missing.push(one);
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
    for (const one of part) tell(one, true);
  }
  await removeJournal(journal.path);
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

/** In order, but the card last: a repository whose upload broke off shall not describe what is not there. */
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
