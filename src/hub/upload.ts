/**
 * `upload`: a file or a folder into a repository. Transport is the library's: it asks which files go to LFS, sends
 * those the Hub lacks, and commits. Here it is decided what has to be sent at all, in how many commits, and how a
 * broken upload goes on.
 */
import { open, readFile, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type CommitOutput, commitIter, createBranch, createRepo, type RepoId } from "@huggingface/hub";
import { fromSystem, IsologitError } from "../core/errors.ts";
import { unwatched, type Watch } from "../core/events.ts";
import { safePath } from "../core/path.ts";
import { fileStore } from "../io/file.ts";
import { steadily } from "../io/http.ts";
import { repoName, revisionName } from "../io/locate.ts";
import { cardOf } from "./card.ts";
import { cardFacts } from "./card-facts.ts";
import { type About, ask, type Connection, connect, offline } from "./connection.ts";
import { chosen } from "./globs.ts";
import { forget, type Journal, journalPath, note, readJournal } from "./journal.ts";
import { type HubFile, type Listing, listRevision } from "./listing.ts";
import { remoteFile } from "./remote.ts";
import { type HubSettings, hubSettings } from "./settings.ts";
import { hashFile, hashFor } from "./transfer.ts";

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
  readonly seconds: number;
}

/** The Hub's advice for large folders; one commit of thousands of files runs into its timeout. */
const COMMIT_FILES = 50;
const COMMIT_BYTES = 10e9;
const MAX_CARD_BYTES = 4 * 1024 * 1024;
const CARD = "README.md";

interface Local {
  /** in the repository */
  readonly path: string;
  readonly size: number;
  readonly mtimeMs: number;
  readonly content: { readonly file: string } | { readonly text: string };
}

/** @throws USAGE, NOT_FOUND, ACCESS_REFUSED, NETWORK, OFFLINE, CONFIG_INVALID for a broken card, INTERRUPTED */
export async function upload(
  repository: string,
  path: string,
  options: UploadOptions = {},
): Promise<UploadReport> {
  const started = performance.now();
  const repo = repoName(repository);
  const revision = revisionName(options.revision ?? "main");
  const { watch = unwatched, signal } = options;
  const settings = options.settings ?? (await hubSettings(process.env, options.token));
  const at = { file: `hf://${repo}` };
  if (settings.offline) throw offline(at);
  if (settings.token === undefined) throw new IsologitError("ACCESS_REFUSED", "an upload needs a token", at);
  const connection = connect(settings);

  const local = await localFiles(path, options);
  const journal = await readJournal(
    journalPath(settings.home, [
      settings.endpoint,
      repo,
      revision,
      resolve(path),
      options.pathInRepo ?? "",
      String(options.createPr ?? false),
    ]),
  );
  const branch = journal.opened?.branch ?? revision;
  const before = await readyBranch(connection, repo, branch, options);
  const card = await cardFile(connection, before, path, local, options);
  const wanted = card === undefined ? local : [...local.filter((one) => one.path !== CARD), card];

  const bytes = wanted.reduce((sum, { size }) => sum + size, 0);
  watch({ type: "phase", phase: "upload", totalBytes: bytes });
  const there = new Map(before.files.map((file) => [file.path, file]));
  const files: { path: string; size: number; sent: boolean }[] = [];
  const tell = (one: Local, sent: boolean) => {
    files.push({ path: one.path, size: one.size, sent });
    watch({ type: "advance", phase: "upload", bytes: one.size });
    watch({ type: "file", path: one.path, bytes: one.size, fetched: sent ? one.size : 0 });
  };
  const missing: Local[] = [];
  for (const one of wanted) {
    signal?.throwIfAborted();
    if (await isSame(one, there.get(one.path), journal, signal)) tell(one, false);
    else missing.push(one);
  }

  const parts = partsOf(missing, options.commitFiles ?? COMMIT_FILES, options.commitBytes ?? COMMIT_BYTES);
  const run: Run = {
    connection,
    repo,
    branch,
    journal: journal.path,
    options,
    opened: journal.opened,
    commits: [],
  };
  for (const [i, part] of parts.entries()) {
    const title =
      options.commitMessage ??
      `Upload ${wanted.length} ${wanted.length === 1 ? "file" : "files"} with isologit`;
    await send(run, part, parts.length === 1 ? title : `${title} (part ${i + 1} of ${parts.length})`);
    for (const one of part) tell(one, true);
  }
  await forget(journal.path);
  return {
    repo,
    revision,
    url: `${settings.endpoint}/${repo}`,
    commits: run.commits,
    pullRequest: run.opened?.pullRequest ?? null,
    files,
    bytes,
    sent: files.reduce((sum, { size, sent }) => sum + (sent ? size : 0), 0),
    card: card !== undefined,
    seconds: (performance.now() - started) / 1000,
  };
}

async function localFiles(path: string, options: UploadOptions): Promise<readonly Local[]> {
  const store = await fileStore(path);
  const single = (await stat(path)).isFile();
  const inRepo = (options.pathInRepo ?? "").replace(/^\.?\/+|^\.$|\/+$/g, "");
  const wanted = chosen(options);
  const files = (await store.list()).filter((file) => single || wanted(file.path));
  if (files.length === 0) throw new IsologitError("NOT_FOUND", "there is no file to upload", { file: path });
  return await Promise.all(
    files.map(async (file) => {
      const from = single ? path : join(path, file.path);
      const to = single ? inRepo || basename(path) : inRepo === "" ? file.path : `${inRepo}/${file.path}`;
      const { size, mtimeMs } = await stat(from).catch((error) =>
        Promise.reject(fromSystem(error, { file: from })),
      );
      return { path: safePath(to, { file: from }), size, mtimeMs, content: { file: from } };
    }),
  );
}

/** The branch as it is, made if need be, and the repository too. */
async function readyBranch(
  connection: Connection,
  repo: string,
  branch: string,
  options: UploadOptions,
): Promise<Listing> {
  const { signal } = options;
  const about: About = { repo, revision: branch };
  const fetch = connection.fetchFor(about, signal);
  const missing = async (error: unknown) => {
    if (!(error instanceof IsologitError) || error.code !== "NOT_FOUND") throw error;
  };
  const found = await listRevision(connection, repo, branch, signal).catch(missing);
  if (found !== undefined) return found;
  const accessToken = connection.settings.token!;
  const hubUrl = connection.settings.endpoint;
  const designation: RepoId = { type: "model", name: repo };
  await ask(connection, about, async () => {
    const made = {
      repo: designation,
      accessToken,
      hubUrl,
      fetch,
      ...(options.private === true && { private: true }),
    };
    await createRepo(made).catch((error) => {
      if (error.statusCode !== 409) throw error; // it is there: only the branch is not
    });
  });
  const main = await listRevision(connection, repo, "main", signal);
  if (branch === "main") return main;
  await ask(connection, about, () => createBranch({ repo: designation, branch, accessToken, hubUrl, fetch }));
  return { ...main, revision: branch };
}

/** The card, where what is uploaded is a checkpoint at the root of the repository. */
async function cardFile(
  connection: Connection,
  before: Listing,
  path: string,
  local: readonly Local[],
  options: UploadOptions,
): Promise<Local | undefined> {
  if (/[^./]/.test(options.pathInRepo ?? "") && (await stat(path)).isDirectory()) return undefined;
  const facts = await cardFacts(
    path,
    options.baseModel === undefined ? undefined : repoName(options.baseModel),
  );
  if (facts === undefined) return undefined;
  const own = local.find((one) => one.path === CARD);
  const remote = before.files.find((file) => file.path === CARD);
  const existing =
    own !== undefined && "file" in own.content
      ? await readFile(own.content.file, "utf8")
      : remote !== undefined && remote.size <= MAX_CARD_BYTES
        ? await textOf(connection, before, remote)
        : undefined;
  const text = cardOf(existing, facts, before.repo.split("/")[1]!);
  return { path: CARD, size: Buffer.byteLength(text), mtimeMs: 0, content: { text } };
}

async function textOf(connection: Connection, { repo, commit }: Listing, file: HubFile): Promise<string> {
  const chunks: Uint8Array[] = [];
  const { patience } = connection.settings;
  const remote = remoteFile(connection, repo, commit, file);
  for await (const bytes of steadily(remote, 0, file.size, { patience })) chunks.push(bytes);
  return Buffer.concat(chunks).toString("utf8");
}

/** By the journal, where the file was not touched since it was sent; else by its digest. */
async function isSame(
  one: Local,
  remote: HubFile | undefined,
  journal: Journal,
  signal?: AbortSignal,
): Promise<boolean> {
  if (remote === undefined || remote.size !== one.size) return false;
  const { content } = one;
  const hash = hashFor(remote);
  if ("text" in content) return hash.update(content.text).digest("hex") === remote.etag;
  const sent = journal.sent.get(one.path);
  if (sent?.size === one.size && sent.mtimeMs === one.mtimeMs) return sent.etag === remote.etag;
  const handle = await open(content.file, "r");
  try {
    await hashFile(handle, one.size, hash, signal);
  } finally {
    await handle.close();
  }
  return hash.digest("hex") === remote.etag;
}

/** In order, but the card last: a repository whose upload broke off shall not describe what is not there. */
function partsOf(files: readonly Local[], maxFiles: number, maxBytes: number): readonly (readonly Local[])[] {
  const ordered = [
    ...files.filter(({ path }) => path !== CARD),
    ...files.filter(({ path }) => path === CARD),
  ];
  const parts: Local[][] = [];
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

interface Run {
  readonly connection: Connection;
  readonly repo: string;
  branch: string;
  readonly journal: string;
  readonly options: UploadOptions;
  opened: Journal["opened"];
  readonly commits: string[];
}

/** One commit. Afterwards the journal knows what the Hub calls each file. */
async function send(run: Run, part: readonly Local[], title: string): Promise<void> {
  const { connection, repo, options } = run;
  const { signal } = options;
  const about: About = { repo, revision: run.branch };
  const opens = options.createPr === true && run.opened === undefined;
  const iterator = commitIter({
    ...connection.access,
    repo: { type: "model", name: repo },
    title,
    branch: run.branch,
    isPullRequest: opens,
    operations: part.map(({ path, content }) => ({
      operation: "addOrUpdate",
      path,
      content: "file" in content ? pathToFileURL(resolve(content.file)) : new Blob([content.text]),
    })),
    fetch: connection.fetchFor(about, signal),
    ...(signal !== undefined && { abortSignal: signal }),
  });
  const done = await ask(connection, about, async () => {
    for (;;) {
      const step = await iterator.next();
      if (step.done) return step.value;
    }
  }).catch(async (error): Promise<CommitOutput | undefined> => {
    if (!opens && error instanceof IsologitError && error.code === "NETWORK" && (await landed(run, part)))
      return undefined;
    throw error;
  });
  if (done !== undefined) run.commits.push(done.commit.oid);
  if (opens && done?.pullRequestUrl !== undefined) {
    const number = /\/(\d+)\/?$/.exec(done.pullRequestUrl)?.[1];
    run.branch = `refs/pr/${number}`;
    run.opened = { branch: run.branch, pullRequest: done.pullRequestUrl };
    await note(run.journal, [run.opened]);
  }
  const now = new Map(
    (await listRevision(connection, repo, run.branch, signal)).files.map((file) => [file.path, file]),
  );
  const lines = part.flatMap(({ path, size, mtimeMs }) => {
    const file = now.get(path);
    return file?.size === size ? [{ path, size, mtimeMs, etag: file.etag }] : [];
  });
  await note(run.journal, lines);
}

/** The connection broke while a commit was answered: it may have been made. */
async function landed(run: Run, part: readonly Local[]): Promise<boolean> {
  const listing = await listRevision(run.connection, run.repo, run.branch, run.options.signal);
  const now = new Map(listing.files.map((file) => [file.path, file]));
  const none: Journal = { path: run.journal, sent: new Map(), opened: undefined };
  for (const one of part) if (!(await isSame(one, now.get(one.path), none, run.options.signal))) return false;
  return true;
}
