/**
 * Requests to the Hub. What the library asks goes through a `fetch` of ours, which adds what it lacks: proxies,
 * pauses and further tries, a word for each refusal, and care for the token.
 */
import type { downloadFile as libraryDownload } from "@huggingface/hub";
import { type Dispatcher, EnvHttpProxyAgent, fetch as undiciFetch } from "undici";
import { type ErrorLocation, IsologitError } from "../core/errors.ts";
import { asTransient, type Headers, isTransientStatus, networkError } from "../io/http.ts";
import { interruptedError, retry, retryAfterMs, TransientError } from "../io/retry.ts";
import { type Asked, asOurs, refusal } from "./faults.ts";
import type { Environment, HubSettings } from "./settings.ts";

export type Fetch = NonNullable<Parameters<typeof libraryDownload>[0]["fetch"]>;

export interface Connection {
  readonly settings: HubSettings;
  readonly dispatcher: Dispatcher;
  /** what the library needs to know, to be spread into its parameters */
  readonly access: { readonly hubUrl: string; readonly accessToken?: string };
  /** for requests about one repository; `signal` ends them */
  fetchFor(about: About, signal?: AbortSignal): Fetch;
}

export interface About {
  readonly repo: string;
  readonly revision?: string;
  readonly at?: ErrorLocation;
}

const SILENCE_MS = 30_000;
/** A connection is made in less than a second, or not at all. */
const CONNECT_MS = 10_000;

/** @param env names the proxies: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, in capitals or not */
export function connect(settings: HubSettings, env: Environment = process.env): Connection {
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
    fetchFor: (about, signal) => hubFetch(settings, dispatcher, reach, askedOf(settings, about), signal),
  };
}

export function askedOf(settings: HubSettings, { repo, revision, at }: About): Asked {
  const { endpoint, token } = settings;
  return {
    repo,
    endpoint,
    token,
    at: at ?? { file: `hf://${repo}` },
    ...(revision !== undefined && { revision }),
  };
}

/** Runs a call of the library; what it throws becomes one of ours. */
export async function ask<T>(connection: Connection, about: About, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw asOurs(error, askedOf(connection.settings, about));
  }
}

/** Sent twice, a commit would be made twice; whether one arrived is found out by looking. */
const mayRepeat = (method: string, path: string): boolean =>
  method !== "POST" || !/\/commit\/[^/]+$/.test(path);

/** Whether any answer came yet: before the first the address may be wrong, after it the network has a moment's trouble. */
interface Reach {
  ever: boolean;
}

function hubFetch(
  settings: HubSettings,
  dispatcher: Dispatcher,
  reach: Reach,
  asked: Asked,
  signal?: AbortSignal,
): Fetch {
  const { patience } = settings;
  async function fetchOnce(input: string | URL, init: RequestInit, again: boolean): Promise<Response> {
    const url = new URL(input);
    const headers = guarded(settings, url, init.headers);
    const ends = [signal, init.signal].filter((one) => one !== undefined && one !== null);
    try {
      // Ours is undici's own fetch; its types differ from the platform's in names alone.
      const answer = (await undiciFetch(url, {
        ...(init as object),
        headers,
        dispatcher,
        ...(ends.length > 0 && { signal: AbortSignal.any(ends) }),
      })) as unknown as Response;
      reach.ever = true;
      if (answer.ok || answer.status === 409) return answer;
      const said: Headers = Object.fromEntries(answer.headers);
      await answer.body?.cancel().catch(() => {});
      if (!isTransientStatus(answer.status)) throw refusal(asked, answer.status, said);
      const failure = networkError(`the Hub answers ${answer.status}`, asked.at);
      throw again ? new TransientError(failure, retryAfterMs(answer.headers.get("retry-after"))) : failure;
    } catch (error) {
      if (signal?.aborted) throw interruptedError(signal);
      const known = named(asTransient(error, asked.at), error, url, reach);
      throw known instanceof TransientError && !again ? known.failure : known;
    }
  }
  return async (input, init = {}) => {
    // The library asks with strings and addresses, never with a Request.
    const target = input as string | URL;
    if (settings.offline) throw offline(asked.at);
    const again = mayRepeat(init.method ?? "GET", new URL(target).pathname);
    return await retry(() => fetchOnce(target, init, again), patience, signal);
  };
}

/** Failures before a connection is made. One that was made and closed again is a server in trouble. */
const UNREACHED =
  /E(CONNREFUSED|HOSTUNREACH|NETUNREACH|HOSTDOWN|TIMEDOUT|NOTFOUND|AI_AGAIN)|CONNECT_TIMEOUT|bad port/;

/** A failure of the connection, with the address that was asked. Others are told by whoever answered. */
function named(known: unknown, error: unknown, url: URL, reach: Reach): unknown {
  if (known === error) return known;
  const failure = known instanceof TransientError ? known.failure : known;
  if (!(failure instanceof IsologitError) || failure.code !== "NETWORK") return known;
  const isUnreached = !reach.ever && UNREACHED.test(failure.message);
  const message = `${url.origin} ${isUnreached ? "cannot be reached" : "broke off"}: ${failure.message}`;
  const next = !isUnreached
    ? undefined
    : "check the connection and, where they are set, HF_ENDPOINT and the proxy (HTTPS_PROXY), then run the same command again";
  const told = new IsologitError("NETWORK", message, failure.at, {
    cause: failure.cause,
    ...(next !== undefined && { next }),
  });
  return known instanceof TransientError ? new TransientError(told, known.waitMs, isUnreached) : told;
}

/** A listing may name any address as its next page; the token goes to the Hub alone. */
function guarded(settings: HubSettings, url: URL, given: RequestInit["headers"]): Record<string, string> {
  const headers = new globalThis.Headers(given);
  const own = url.origin === new URL(settings.endpoint).origin;
  if (!own && headers.get("authorization") === `Bearer ${settings.token}`) headers.delete("authorization");
  return Object.fromEntries(headers);
}

export function offline(at: ErrorLocation): IsologitError {
  return new IsologitError("OFFLINE", "HF_HUB_OFFLINE is set, and this is not in the cache", at);
}
