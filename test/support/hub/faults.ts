/** What a fake Hub does wrong on purpose, and to which requests. */
import type { ServerResponse } from "node:http";

export type Fault =
  /** closes the connection before it answers */
  | { readonly kind: "refuse" }
  /** closes the connection after so many bytes of the body */
  | { readonly kind: "drop"; readonly after: number }
  | { readonly kind: "status"; readonly status: number; readonly retryAfter?: string; readonly code?: string }
  /** says a shorter length, and keeps to it */
  | { readonly kind: "truncate"; readonly to: number }
  | { readonly kind: "etag"; readonly etag: string }
  | { readonly kind: "size"; readonly size: number }
  /** a pause before each so many bytes */
  | { readonly kind: "slow"; readonly everyBytes: number; readonly ms: number }
  /** one byte of the body is another */
  | { readonly kind: "flip"; readonly at: number }
  /** the whole file, whatever was asked for */
  | { readonly kind: "whole" }
  /** bytes from another place than asked for */
  | { readonly kind: "shift"; readonly by: number };

export interface Asked {
  readonly server: "hub" | "storage";
  readonly method: string;
  /** with the query */
  readonly url: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
}

/** The fault of a request, if it shall have one. */
export type Plan = (asked: Asked) => Fault | undefined;

/** The first `times` requests that match go wrong. */
export function first(times: number, matches: RegExp, fault: Fault): Plan {
  let left = times;
  return ({ method, url, server }) =>
    left > 0 && matches.test(`${server} ${method} ${url}`) && left-- > 0 ? fault : undefined;
}

export const every = (matches: RegExp, fault: Fault): Plan => first(Number.POSITIVE_INFINITY, matches, fault);

/** Sends a body through a fault that lies in it. */
export async function sendBody(
  response: ServerResponse,
  body: AsyncIterable<Buffer>,
  fault: Fault | undefined,
  sent: (bytes: number) => void,
): Promise<void> {
  let position = 0;
  for await (const chunk of portions(body, fault)) {
    const bytes = Buffer.from(chunk);
    if (fault?.kind === "flip" && fault.at >= position && fault.at < position + bytes.byteLength) {
      bytes[fault.at - position]! ^= 1;
    }
    const limit =
      fault?.kind === "drop" ? fault.after : fault?.kind === "truncate" ? fault.to : Number.POSITIVE_INFINITY;
    const part = bytes.subarray(0, Math.max(0, limit - position));
    position += part.byteLength;
    sent(part.byteLength);
    if (!response.write(part)) await drained(response);
    if (response.destroyed) return;
    if (fault?.kind === "drop" && position >= fault.after) {
      // What was written must get out before the line is cut.
      await new Promise((resolve) => response.write("", resolve));
      response.destroy();
      return;
    }
    if (position >= limit) break;
    if (fault?.kind === "slow") await new Promise((resolve) => setTimeout(resolve, fault.ms));
  }
  response.end();
}

async function* portions(body: AsyncIterable<Buffer>, fault: Fault | undefined): AsyncIterable<Buffer> {
  for await (const chunk of body) {
    const step = fault?.kind === "slow" ? fault.everyBytes : chunk.byteLength || 1;
    for (let at = 0; at < chunk.byteLength; at += step) yield chunk.subarray(at, at + step);
  }
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      response.off("drain", go);
      response.off("close", go);
      resolve();
    };
    response.on("drain", go);
    response.on("close", go);
  });
}
