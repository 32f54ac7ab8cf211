/** The branch of an upload, and its commits. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { CommitOutput, RepoId } from "@huggingface/hub";
import { IsologitError, systemError } from "../../core/errors.ts";
import { type Connection, callHub, type RequestSubject } from "../connection.ts";
import type { HubFile, Listing } from "../files.ts";
import { listRevision } from "../read/listing.ts";
import { appendToJournal, type OpenedRequest } from "./journal.ts";
import { isUnchanged, type LocalFile } from "./local-files.ts";

interface BranchOptions {
  /** visibility of a new repository */
  readonly private?: boolean;
  readonly signal?: AbortSignal;
}

/** Lists the branch. Creates the repository and the branch if they are missing. */
export async function ensureBranch(
  connection: Connection,
  repo: string,
  branch: string,
  options: BranchOptions,
): Promise<Listing> {
  const { signal } = options;
  const subject: RequestSubject = { repo, revision: branch };
  const fetch = connection.fetchFor(subject, signal);
  const ignoreMissing = async (error: unknown) => {
    if (!(error instanceof IsologitError) || error.code !== "NOT_FOUND") throw error;
  };
  const found = await listRevision(connection, repo, branch, signal).catch(ignoreMissing);
  if (found !== undefined) return found;
  const accessToken = connection.settings.token!;
  const hubUrl = connection.settings.endpoint;
  const { createBranch, createRepo } = await import("@huggingface/hub");
  const repoId: RepoId = { type: "model", name: repo };
  await callHub(connection, subject, async () => {
    const parameters = {
      repo: repoId,
      accessToken,
      hubUrl,
      fetch,
      ...(options.private === true && { private: true }),
    };
    await createRepo(parameters).catch((error) => {
      if (error.statusCode !== 409) throw error; // the repository exists, only the branch is missing
    });
  });
  const main = await listRevision(connection, repo, "main", signal);
  if (branch === "main") return main;
  await callHub(connection, subject, () =>
    createBranch({ repo: repoId, branch, accessToken, hubUrl, fetch }),
  );
  return { ...main, revision: branch };
}

/** State of one upload. */
export interface UploadState {
  readonly connection: Connection;
  readonly repo: string;
  /** path of the journal */
  readonly journal: string;
  /** commits go to a pull request, which the first commit opens unless an earlier run did */
  readonly createPr: boolean;
  readonly signal: AbortSignal | undefined;
  branch: string;
  pullRequest: OpenedRequest | undefined;
  /** commits of this run, in order */
  readonly commits: string[];
}

/** Makes one commit and records the digest of each file in the journal. */
export async function commitFiles(
  state: UploadState,
  part: readonly LocalFile[],
  title: string,
): Promise<void> {
  const opens = state.createPr && state.pullRequest === undefined;
  const done = await makeCommit(state, part, title, opens).catch(async (error) => {
    const broke = error instanceof IsologitError && error.code === "NETWORK";
    if (broke && !opens && (await hasArrived(state, part))) return undefined;
    throw error;
  });
  if (done !== undefined) state.commits.push(done.commit.oid);
  if (opens && done?.pullRequestUrl !== undefined) {
    const number = /\/(\d+)\/?$/.exec(done.pullRequestUrl)?.[1];
    state.branch = `refs/pr/${number}`;
    state.pullRequest = { branch: state.branch, pullRequest: done.pullRequestUrl };
    await appendToJournal(state.journal, [state.pullRequest]);
  }
  const now = await readFiles(state);
  const lines = part.flatMap(({ path, size, mtimeMs }) => {
    const file = now.get(path);
    return file?.size === size ? [{ path, size, mtimeMs, etag: file.etag }] : [];
  });
  await appendToJournal(state.journal, lines);
}

async function makeCommit(
  { connection, repo, branch, signal }: UploadState,
  part: readonly LocalFile[],
  title: string,
  isPullRequest: boolean,
): Promise<CommitOutput | undefined> {
  const subject: RequestSubject = { repo, revision: branch };
  const { commitIter } = await import("@huggingface/hub");
  const steps = commitIter({
    ...connection.access,
    repo: { type: "model", name: repo },
    title,
    branch,
    isPullRequest,
    operations: part.map(({ path, content }) => ({
      operation: "addOrUpdate",
      path,
      content: "file" in content ? pathToFileURL(resolve(content.file)) : new Blob([content.text]),
    })),
    fetch: connection.fetchFor(subject, signal),
    ...(signal !== undefined && { abortSignal: signal }),
  });
  return await callHub(connection, subject, async () => {
    for (;;) {
      const step = await steps.next().catch((error) => {
        throw fileError(error, part); // the library opens and reads the files
      });
      if (step.done) return step.value;
    }
  });
}

/** Codes of errors of files; those of connections are others. */
const OF_FILES = ["ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "EIO", "ESTALE", "EMFILE", "ENFILE"];

/** An error of the file system, with a file; a failed read does not name it. Other errors stay as they are. */
function fileError(error: NodeJS.ErrnoException, part: readonly LocalFile[]): unknown {
  if (!OF_FILES.includes(error.code ?? "") || error.syscall === "connect") return error;
  const files = part.flatMap(({ content }) => ("file" in content ? [content.file] : []));
  const [first = "the files", ...others] = files;
  const named = others.length === 0 ? first : `${first} or one of ${others.length} more files`;
  return systemError(error, { file: error.path ?? named });
}

/** Whether the Hub made a commit although the connection failed before its answer. */
async function hasArrived(state: UploadState, part: readonly LocalFile[]): Promise<boolean> {
  const now = await readFiles(state);
  for (const file of part)
    if (!(await isUnchanged(file, now.get(file.path), undefined, state.signal))) return false;
  return true;
}

async function readFiles({ connection, repo, branch, signal }: UploadState): Promise<Map<string, HubFile>> {
  const { files } = await listRevision(connection, repo, branch, signal);
  return new Map(files.map((file) => [file.path, file]));
}
