/**
 * A file behind a URL, read by ranges. Every answer is compared with what is known about the file: another range, another
 * size or another version is an error before any byte is used. A body that breaks off is continued where it stopped.
 */
import type { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import { type ErrorLocation, IsologitError } from "../core/errors.ts";
import type { ByteSource } from "../core/io.ts";
import { createAttempts, interruptedError, type RetryLimits, retryAfterMs, TransientError } from "./retry.ts";

/** Largest number of redirects of one request. The Hub needs two: for a renamed repository, and for its storage. */
const MAX_HOPS = 5;
const SILENCE_MS = 30_000;

/** A remote file as a stream of bytes. */
export interface Remote {
  readonly at: ErrorLocation;
  /** bytes */
  readonly size: number;
  /**
   * Bytes from `start` to `end`, in order, and no more. The stream may break off.
   *
   * @throws TransientError if another try may succeed; else IsologitError
   */
  stream(start: number, end: number, signal?: AbortSignal): AsyncIterable<Uint8Array>;
}

interface HttpFile {
  readonly url: string;
  readonly size: number;
  /** version of the file, as the first server names it; without quotes */
  readonly etag: string;
  readonly at: ErrorLocation;
  readonly dispatcher: Dispatcher;
  /** sent only to the origin of `url`, because they may contain a token */
  readonly headers: Readonly<Record<string, string>>;
  /** Makes the error for a refusal by that server. */
  readonly refusal: (status: number, headers: Headers) => IsologitError;
}

export type Headers = Readonly<Record<string, string | readonly string[] | undefined>>;

/** Reuses a signed address until it expires, which saves one request for each range. */
export function httpRemote(file: HttpFile): Remote {
  let location: string | undefined;
  return {
    at: file.at,
    size: file.size,
    async *stream(start, end, signal) {
      if (start >= end) return;
      try {
        const answer = await get(file, location ?? file.url, start, end, signal);
        location = answer.location;
        yield* bodyOf(answer.body, file.at, start, end);
      } catch (error) {
        location = undefined;
        if (signal?.aborted) throw interruptedError(signal);
        throw toTransientError(error, file.at);
      }
    },
  };
}

async function get(file: HttpFile, from: string, start: number, end: number, signal?: AbortSignal) {
  const { request } = await import("undici");
  let url = from;
  for (let hop = 0; hop <= MAX_HOPS; hop++) {
    const own = new URL(url).origin === new URL(file.url).origin;
    const answer = await request(url, {
      dispatcher: file.dispatcher,
      headers: {
        ...(own && file.headers),
        range: `bytes=${start}-${end - 1}`,
        "accept-encoding": "identity",
      },
      headersTimeout: SILENCE_MS,
      bodyTimeout: SILENCE_MS,
      signal: signal ?? null,
    });
    const { statusCode: status, headers, body } = answer;
    const version = headers["x-linked-etag"] ?? (url === file.url ? headers.etag : undefined);
    const fault = versionFault(file, firstValue(version), firstValue(headers["x-linked-size"]));
    if (fault === undefined && status >= 300 && status < 400 && headers.location !== undefined) {
      body.on("error", () => {});
      body.destroy();
      url = new URL(firstValue(headers.location)!, url).href;
      continue;
    }
    const refused = fault ?? rangeFault(file, status, headers, start, end) ?? undefined;
    if (refused === undefined) return { body, location: url === file.url ? undefined : url };
    body.on("error", () => {});
    body.destroy();
    // An expired signed address is refused with 403 too; the first server gives a new address.
    throw status === 403 && !own
      ? new TransientError(networkError("the storage's address expired", file.at))
      : refused;
  }
  throw networkError(`more than ${MAX_HOPS} redirects`, file.at);
}

const firstValue = (value: string | readonly string[] | undefined): string | undefined =>
  typeof value === "string" ? value : value?.[0];

/** `"abc"`, `W/"abc"` or `abc`: abc. */
const plainEtag = (etag: string): string => etag.replace(/^W\//, "").replaceAll('"', "");

function versionFault(file: HttpFile, etag?: string, size?: string): IsologitError | undefined {
  if (etag !== undefined && plainEtag(etag) !== file.etag) {
    const message = `the server has version ${plainEtag(etag)} now, expected ${file.etag}`;
    return new IsologitError("FILE_CHANGED", message, file.at, { next: "run the same command again" });
  }
  return size === undefined || Number(size) === file.size ? undefined : otherSize(file, size);
}

function otherSize(file: HttpFile, size: string): IsologitError {
  const message = `the server has ${size} bytes now, expected ${file.size}`;
  return new IsologitError("FILE_CHANGED", message, file.at, { next: "run the same command again" });
}

function rangeFault(file: HttpFile, status: number, headers: Headers, start: number, end: number) {
  if (status === 206) {
    const given = firstValue(headers["content-range"]) ?? "";
    const [, from, to, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(given) ?? [];
    if (total !== undefined && total !== "*" && Number(total) !== file.size) return otherSize(file, total);
    if (Number(from) === start && Number(to) === end - 1) return undefined;
    return new TransientError(
      networkError(`asked for bytes ${start}-${end - 1}, was given "${given}"`, file.at),
    );
  }
  if (status === 200 && start === 0 && end === file.size) {
    const length = firstValue(headers["content-length"]);
    return length === undefined || Number(length) === file.size ? undefined : otherSize(file, length);
  }
  if (status === 416) return otherSize(file, "fewer");
  if (status === 200) return networkError("the server does not serve ranges", file.at);
  return statusFault(status, headers, file);
}

function statusFault(status: number, headers: Headers, file: HttpFile): IsologitError | TransientError {
  if (!isTransientStatus(status)) return file.refusal(status, headers);
  return new TransientError(
    networkError(`the server answers ${status}`, file.at),
    retryAfterMs(firstValue(headers["retry-after"])),
  );
}

/** Timeouts, too many requests, and errors of the server. */
export const isTransientStatus = (status: number): boolean =>
  status === 408 || status === 425 || status === 429 || status >= 500;

async function* bodyOf(
  body: Readable,
  at: ErrorLocation,
  start: number,
  end: number,
): AsyncIterable<Uint8Array> {
  let position = start;
  try {
    for await (const chunk of body) {
      const bytes: Uint8Array = chunk;
      if (position + bytes.byteLength > end) {
        throw networkError(`more bytes arrived than the ${end - start} requested`, { ...at, offset: end });
      }
      position += bytes.byteLength;
      yield bytes;
    }
  } finally {
    body.on("error", () => {}); // an error after the last read; without a handler Node would exit
    body.destroy();
  }
  if (position < end) {
    throw new TransientError(
      networkError(`${end - position} bytes are missing at the end`, { ...at, offset: position }),
    );
  }
}

export const networkError = (message: string, at: ErrorLocation, cause?: unknown): IsologitError =>
  new IsologitError("NETWORK", message, at, cause === undefined ? {} : { cause });

/** A failure of the connection as a TransientError; any other error as it is. */
export function toTransientError(error: unknown, at: ErrorLocation): unknown {
  if (error instanceof IsologitError || error instanceof TransientError) return error;
  const reason = reasonOf(error);
  if (reason === undefined) return error;
  // An unknown name is a typing error, or the machine has no network; a port may be forbidden.
  return /ENOTFOUND|bad port/.test(reason)
    ? networkError(reason, at, error)
    : new TransientError(networkError(reason, at, error));
}

/** The reason for a failed connection from the system or undici; undefined for any other error. */
function reasonOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("code" in error && typeof error.code === "string" && /^(E[A-Z]|UND_ERR)/.test(error.code)) {
    return `${error.message || "the connection failed"} (${error.code})`;
  }
  return (
    reasonOf(error.cause) ??
    (error instanceof TypeError && /fetch failed|terminated/.test(error.message)
      ? wholeMessage(error)
      : undefined)
  );
}

const wholeMessage = ({ message, cause }: Error): string =>
  cause instanceof Error && cause.message !== "" ? `${message}: ${cause.message}` : message;

/**
 * All bytes from `start` to `end`; a stream that breaks off is opened again.
 *
 * @param broken called with the failure before each further try
 */
export async function* readThroughBreaks(
  remote: Remote,
  start: number,
  end: number,
  options: { patience: RetryLimits; signal?: AbortSignal | undefined; broken?: (error: unknown) => void },
): AsyncIterable<Uint8Array> {
  const { patience, signal, broken } = options;
  const tries = createAttempts(patience, signal);
  for (let position = start; position < end; ) {
    try {
      for await (const bytes of remote.stream(position, end, signal)) {
        position += bytes.byteLength;
        tries.gained();
        yield bytes;
      }
    } catch (error) {
      broken?.(error);
      await tries.failed(error);
    }
  }
}

/** A remote file as a source: one request for each read. */
export function remoteSource(url: string, remote: Remote, patience: RetryLimits): ByteSource {
  return {
    url,
    size: remote.size,
    async readInto(target, offset, signal) {
      const end = offset + target.byteLength;
      if (end > remote.size) {
        const message = `the file has ${remote.size} bytes; ${target.byteLength} were requested from byte ${offset}`;
        throw new IsologitError("TRUNCATED", message, { ...remote.at, offset: remote.size });
      }
      let filled = 0;
      for await (const bytes of readThroughBreaks(remote, offset, end, { patience, signal })) {
        target.set(bytes, filled);
        filled += bytes.byteLength;
      }
    },
    async [Symbol.asyncDispose]() {},
  };
}
