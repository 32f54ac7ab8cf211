/** The branch that an upload goes to. */
import { createBranch, createRepo, type RepoId } from "@huggingface/hub";
import { IsologitError } from "../core/errors.ts";
import { type About, ask, type Connection } from "./connection.ts";
import { type Listing, listRevision } from "./listing.ts";

export interface BranchOptions {
  /** of a repository that is made now */
  readonly private?: boolean;
  readonly signal?: AbortSignal;
}

/** The branch as it is, made if need be, and the repository too. */
export async function readyBranch(
  connection: Connection,
  repo: string,
  branch: string,
  options: BranchOptions,
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
