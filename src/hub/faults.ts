/** Errors for requests that the Hub refuses. Their messages contain no secret: no token and no signed address. */
import { type ErrorLocation, IsologitError } from "../core/errors.ts";
import { type Headers, toTransientError } from "../io/http.ts";
import { TransientError } from "../io/retry.ts";

export interface RequestContext {
  readonly repo: string;
  readonly revision?: string;
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly at: ErrorLocation;
}

const SPELLING = "check the spelling; for a private repository set HF_TOKEN, or pass `token`";

/** The error for a status that another try would not change. */
export function refusalError(request: RequestContext, status: number, headers: Headers): IsologitError {
  const { repo, token, at } = request;
  const code = String(headers["x-error-code"] ?? "");
  const reason = String(headers["x-error-message"] ?? "");
  if (code === "GatedRepo") {
    const next = `accept its conditions at ${request.endpoint}/${repo}, then use a token of that account`;
    return new IsologitError("ACCESS_REFUSED", `${repo} is gated: its owner grants access to each user`, at, {
      next,
    });
  }
  if (/disabled/i.test(reason)) return new IsologitError("ACCESS_REFUSED", `${repo} was disabled`, at);
  if (status === 401 && (/credentials/i.test(reason) || (token !== undefined && code === ""))) {
    return new IsologitError("ACCESS_REFUSED", "the Hub does not know this token", at);
  }
  if (code === "RevisionNotFound") {
    const message = `${repo} has no revision ${JSON.stringify(request.revision ?? "main")}`;
    return new IsologitError("NOT_FOUND", message, at, {
      next: "give a branch, a tag or a commit of the repository",
    });
  }
  if (code === "EntryNotFound") {
    return new IsologitError("NOT_FOUND", `${repo} has no such file`, at, { next: "check the name" });
  }
  if (status === 401 || status === 404 || code === "RepoNotFound") {
    const whether =
      token === undefined ? "or it is private and no token was given" : "or the token may not see it";
    return new IsologitError("NOT_FOUND", `there is no repository ${repo}, ${whether}`, at, {
      next: SPELLING,
    });
  }
  const why = reason === "" ? "" : `: ${reason}`;
  if (status === 403) {
    return new IsologitError("ACCESS_REFUSED", `the token may not do this to ${repo}${why}`, at);
  }
  return new IsologitError("NETWORK", `the Hub refuses the request with status ${status}${why}`, at);
}

/** Converts an error of the library or of the connection to an `IsologitError`; other errors stay as they are. */
export async function toIsologitError(error: unknown, request: RequestContext): Promise<unknown> {
  const known = toTransientError(error, request.at);
  if (known instanceof TransientError) return known.failure;
  if (known instanceof IsologitError) return known;
  const { HubApiError } = await import("@huggingface/hub");
  if (known instanceof HubApiError) {
    const message = `the Hub refuses the request with status ${known.statusCode}`;
    return new IsologitError("NETWORK", message, request.at);
  }
  if (known instanceof SyntaxError) {
    return new IsologitError("NETWORK", "the answer of the Hub is not JSON", request.at, { cause: known });
  }
  return known;
}
