/** Commits of an upload, one after the other, each noted in the journal once the Hub has it. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type CommitOutput, commitIter } from "@huggingface/hub";
import { IsologitError } from "../core/errors.ts";
import { type About, ask, type Connection } from "./connection.ts";
import { note, type OpenedRequest } from "./journal.ts";
import { type HubFile, listRevision } from "./listing.ts";
import { isSame, type LocalFile } from "./local-files.ts";

/** One upload, and how far it has come. */
export interface Sending {
  readonly connection: Connection;
  readonly repo: string;
  /** the journal's path */
  readonly journal: string;
  /** commits go to a pull request: the first opens it, unless an earlier run did */
  readonly createPr: boolean;
  readonly signal: AbortSignal | undefined;
  branch: string;
  opened: OpenedRequest | undefined;
  /** made by this run, in order */
  readonly commits: string[];
}

/** One commit. Afterwards the journal knows what the Hub calls each file. */
export async function send(sending: Sending, part: readonly LocalFile[], title: string): Promise<void> {
  const opens = sending.createPr && sending.opened === undefined;
  const done = await commitOf(sending, part, title, opens).catch(async (error) => {
    const broke = error instanceof IsologitError && error.code === "NETWORK";
    if (broke && !opens && (await landed(sending, part))) return undefined;
    throw error;
  });
  if (done !== undefined) sending.commits.push(done.commit.oid);
  if (opens && done?.pullRequestUrl !== undefined) {
    const number = /\/(\d+)\/?$/.exec(done.pullRequestUrl)?.[1];
    sending.branch = `refs/pr/${number}`;
    sending.opened = { branch: sending.branch, pullRequest: done.pullRequestUrl };
    await note(sending.journal, [sending.opened]);
  }
  const now = await filesNow(sending);
  const lines = part.flatMap(({ path, size, mtimeMs }) => {
    const file = now.get(path);
    return file?.size === size ? [{ path, size, mtimeMs, etag: file.etag }] : [];
  });
  await note(sending.journal, lines);
}

async function commitOf(
  { connection, repo, branch, signal }: Sending,
  part: readonly LocalFile[],
  title: string,
  isPullRequest: boolean,
): Promise<CommitOutput | undefined> {
  const about: About = { repo, revision: branch };
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
    fetch: connection.fetchFor(about, signal),
    ...(signal !== undefined && { abortSignal: signal }),
  });
  return await ask(connection, about, async () => {
    for (;;) {
      const step = await steps.next();
      if (step.done) return step.value;
    }
  });
}

/** The connection broke while a commit was answered: it may have been made. */
async function landed(sending: Sending, part: readonly LocalFile[]): Promise<boolean> {
  const now = await filesNow(sending);
  for (const one of part)
    if (!(await isSame(one, now.get(one.path), undefined, sending.signal))) return false;
  return true;
}

async function filesNow({ connection, repo, branch, signal }: Sending): Promise<Map<string, HubFile>> {
  const { files } = await listRevision(connection, repo, branch, signal);
  return new Map(files.map((file) => [file.path, file]));
}
