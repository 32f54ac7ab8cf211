/**
 * Requests to the Hub. Requests of the library go through our own `fetch`, which adds proxies, repeated tries with
 * pauses, an error for each kind of refusal, and protection of the token.
 */
import type { downloadFile as libraryDownload } from "@huggingface/hub";
import type { Dispatcher } from "undici";
import { type ErrorLocation, IsologitError } from "../core/errors.ts";
import { type Headers, isTransientStatus, networkError, toTransientError } from "../io/http.ts";
import { interruptedError, retry, retryAfterMs, TransientError } from "../io/retry.ts";
import { type RequestContext, refusalError, toIsologitError } from "./faults.ts";
import type { Environment, HubSettings } from "./settings.ts";

type HubFetch = NonNullable<Parameters<typeof libraryDownload>[0]["fetch"]>;

export interface Connection {
  readonly settings: HubSettings;
  readonly dispatcher: Dispatcher;
  /** parameters that every call of the library takes */
  readonly access: { readonly hubUrl: string; readonly accessToken?: string };
  /** `fetch` for requests about one repository; `signal` aborts them */
  fetchFor(subject: RequestSubject, signal?: AbortSignal): HubFetch;
}

export interface RequestSubject {
  readonly repo: string;
  readonly revision?: string;
  readonly at?: ErrorLocation;
}

const SILENCE_MS = 30_000;
/** Connections that succeed take less than a second. */
const CONNECT_MS = 10_000;

/** @param env may set proxies: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, in upper or lower case */
export async function connect(settings: HubSettings, env: Environment = process.env): Promise<Connection> {
  const { EnvHttpProxyAgent } = await import("undici");
  const dispatcher = new EnvHttpProxyAgent({
    httpProxy: env.http_proxy ?? env.HTTP_PROXY ?? "",
    httpsProxy: env.https_proxy ?? env.HTTPS_PROXY ?? "",
    noProxy: env.no_proxy ?? env.NO_PROXY ?? "",
    headersTimeout: SILENCE_MS,
    bodyTimeout: SILENCE_MS,
    connect: { timeout: CONNECT_MS },
  });
  const { endpoint, token } = settings;
  const reach = { ever: false };
  return {
    settings,
    dispatcher,
    access: { hubUrl: endpoint, ...(token !== undefined && { accessToken: token }) },
    fetchFor: (subject, signal) =>
      hubFetch(settings, dispatcher, reach, requestContext(settings, subject), signal),
  };
}

export function requestContext(
  settings: HubSettings,
  { repo, revision, at }: RequestSubject,
): RequestContext {
  const { endpoint, token } = settings;
  return {
    repo,
    endpoint,
    token,
    at: at ?? { file: `hf://${repo}` },
    ...(revision !== undefined && { revision }),
  };
}

/** Runs a call of the library and converts its errors to `IsologitError`. */
export async function callHub<T>(
  connection: Connection,
  subject: RequestSubject,
  call: () => Promise<T>,
): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw await toIsologitError(error, requestContext(connection.settings, subject));
  }
}

/** A repeated commit request could make two commits, so it is not repeated; the caller looks whether it arrived. */
const mayRepeat = (method: string, path: string): boolean =>
  method !== "POST" || !/\/commit\/[^/]+$/.test(path);

/**
 * Whether an answer has arrived yet. Before the first answer the address may be wrong; later failures are temporary.
 */
interface Reachability {
  ever: boolean;
}

function hubFetch(
  settings: HubSettings,
  dispatcher: Dispatcher,
  reach: Reachability,
  request: RequestContext,
  signal?: AbortSignal,
): HubFetch {
  const { patience } = settings;
  async function fetchOnce(input: string | URL, init: RequestInit, again: boolean): Promise<Response> {
    const url = new URL(input);
    const headers = headersFor(settings, url, init.headers);
    const ends = [signal, init.signal].filter((end) => end !== undefined && end !== null);
    try {
      const { fetch: undiciFetch } = await import("undici");
      // The types of undici's fetch differ from the types of the platform in their names only.
      const answer = (await undiciFetch(url, {
        ...(init as object),
        headers,
        dispatcher,
        ...(ends.length > 0 && { signal: AbortSignal.any(ends) }),
      })) as unknown as Response;
      reach.ever = true;
      if (answer.ok || answer.status === 409) return answer;
      const answerHeaders: Headers = Object.fromEntries(answer.headers);
      await answer.body?.cancel().catch(() => {});
      if (!isTransientStatus(answer.status)) throw refusalError(request, answer.status, answerHeaders);
      const failure = networkError(`the Hub answers ${answer.status}`, request.at);
      throw again ? new TransientError(failure, retryAfterMs(answer.headers.get("retry-after"))) : failure;
    } catch (error) {
      if (signal?.aborted) throw interruptedError(signal);
      const known = withAddress(toTransientError(error, request.at), error, url, reach);
      throw known instanceof TransientError && !again ? known.failure : known;
    }
  }
  return async (input, init = {}) => {
    // The library passes strings and URLs, never a Request.
    const target = input as string | URL;
    if (settings.offline) throw offlineError(request.at);
    const again = mayRepeat(init.method ?? "GET", new URL(target).pathname);
    return await retry(() => fetchOnce(target, init, again), patience, signal);
  };
}

/** Failures before a connection exists. A connection that closes again is a failure of the server. */
const UNREACHED =
  /E(CONNREFUSED|HOSTUNREACH|NETUNREACH|HOSTDOWN|TIMEDOUT|NOTFOUND|AI_AGAIN)|CONNECT_TIMEOUT|bad port/;

/** Adds the requested address to a failure of the connection. Other errors stay as they are. */
function withAddress(known: unknown, error: unknown, url: URL, reach: Reachability): unknown {
  if (known === error) return known;
  const failure = known instanceof TransientError ? known.failure : known;
  if (!(failure instanceof IsologitError) || failure.code !== "NETWORK") return known;
  const isUnreached = !reach.ever && UNREACHED.test(failure.message);
  const message = `${url.origin} ${isUnreached ? "cannot be reached" : "broke off"}: ${failure.message}`;
  const next = !isUnreached
    ? undefined
    : "check the connection and, where they are set, HF_ENDPOINT and the proxy (HTTPS_PROXY), then run the same command again";
  const failed = new IsologitError("NETWORK", message, failure.at, {
    cause: failure.cause,
    ...(next !== undefined && { next }),
  });
  return known instanceof TransientError ? new TransientError(failed, known.waitMs, isUnreached) : failed;
}

/** The request headers. A listing may give any address as its next page; only the Hub receives the token. */
function headersFor(settings: HubSettings, url: URL, given: RequestInit["headers"]): Record<string, string> {
  const headers = new globalThis.Headers(given);
  const isHub = url.origin === new URL(settings.endpoint).origin;
  if (!isHub && headers.get("authorization") === `Bearer ${settings.token}`) headers.delete("authorization");
  return Object.fromEntries(headers);
}

export function offlineError(at: ErrorLocation): IsologitError {
  return new IsologitError(
    "OFFLINE",
    "HF_HUB_OFFLINE is set, and this file or revision is not in the cache",
    at,
  );
}
