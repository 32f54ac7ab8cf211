/** What the Hub refuses, in words that say what to do. Nothing secret goes into them: no token, no signed address. */
import { HubApiError } from "@huggingface/hub";
import { type ErrorLocation, IsologitError } from "../core/errors.ts";
import { asTransient, type Headers } from "../io/http.ts";
import { TransientError } from "../io/retry.ts";

export interface Asked {
  readonly repo: string;
  readonly revision?: string;
  readonly endpoint: string;
  readonly token: string | undefined;
  readonly at: ErrorLocation;
}

const SPELLING = "check the spelling; for a private repository set HF_TOKEN, or pass --token";

/** A status that no further try would change. */
export function refusal(asked: Asked, status: number, headers: Headers): IsologitError {
  const { repo, token, at } = asked;
  const code = String(headers["x-error-code"] ?? "");
  const said = String(headers["x-error-message"] ?? "");
  if (code === "GatedRepo") {
    const next = `accept its conditions at ${asked.endpoint}/${repo}, then use a token of that account`;
    return new IsologitError("ACCESS_REFUSED", `${repo} is open only to those its owner lets in`, at, {
      next,
    });
  }
  if (/disabled/i.test(said)) return new IsologitError("ACCESS_REFUSED", `${repo} was disabled`, at);
  if (status === 401 && (/credentials/i.test(said) || (token !== undefined && code === ""))) {
    return new IsologitError("ACCESS_REFUSED", "the Hub does not know this token", at);
  }
  if (code === "RevisionNotFound") {
    const message = `${repo} has no revision ${JSON.stringify(asked.revision ?? "main")}`;
    return new IsologitError("NOT_FOUND", message, at, { next: "name a branch, a tag or a commit it has" });
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
  const why = said === "" ? "" : `: ${said}`;
  if (status === 403) {
    return new IsologitError("ACCESS_REFUSED", `the token may not do this to ${repo}${why}`, at);
  }
  return new IsologitError("NETWORK", `the Hub refuses the request with status ${status}${why}`, at);
}

/** Whatever the library or the connection threw, as one of ours. */
export function asOurs(error: unknown, asked: Asked): unknown {
  const known = asTransient(error, asked.at);
  if (known instanceof TransientError) return known.failure;
  if (known instanceof IsologitError) return known;
  if (known instanceof HubApiError) {
    const message = `the Hub refuses the request with status ${known.statusCode}`;
    return new IsologitError("NETWORK", message, asked.at);
  }
  if (known instanceof SyntaxError) {
    return new IsologitError("NETWORK", "the Hub's answer is no JSON", asked.at, { cause: known });
  }
  return known;
}
