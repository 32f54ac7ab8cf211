/** A file behind a URL: every answer is held against what is known of it, and a body that breaks off goes on. */
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Agent } from "undici";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { IsologitError } from "../../src/core/errors.ts";
import { httpRemote, readThroughBreaks } from "../../src/io/http.ts";

const BYTES = Buffer.from(Array.from({ length: 1000 }, (_, i) => i % 251));
const ranges: (string | undefined)[] = [];
let answer: RequestListener;
let server: Server;
const dispatcher = new Agent();

beforeAll(async () => {
  server = createServer((request, response) => {
    ranges.push(request.headers.range);
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
beforeEach(() => {
  ranges.length = 0;
});
afterAll(async () => {
  await dispatcher.close();
  server.close();
});

/** What a good server says, with `changes`. */
function give(status: number, changes: Record<string, string> = {}, body?: Uint8Array): RequestListener {
  return (request, response) => {
    const [, from = "0", to = "999"] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const part = body ?? (status === 206 ? BYTES.subarray(Number(from), Number(to) + 1) : BYTES);
    const range = { "content-range": `bytes ${from}-${to}/1000` };
    response.writeHead(status, { etag: '"v1"', ...(status === 206 && range), ...changes }).end(part);
  };
}

async function read(start: number, end: number): Promise<Buffer> {
  const remote = httpRemote({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/f`,
    size: 1000,
    etag: "v1",
    at: { file: "f" },
    dispatcher,
    headers: {},
    refusal: (status) => new IsologitError("ACCESS_REFUSED", `${status}`),
  });
  const chunks: Uint8Array[] = [];
  const patience = { failures: 3, firstMs: 1, longestMs: 2 };
  for await (const bytes of readThroughBreaks(remote, start, end, { patience })) chunks.push(bytes);
  return Buffer.concat(chunks);
}

describe("is taken", () => {
  it.each([
    ["206 with the range", 100, 200, give(206)],
    ["206 of a size that is not told", 100, 200, give(206, { "content-range": "bytes 100-199/*" })],
    ["206 of a weak version", 0, 10, give(206, { etag: 'W/"v1"' })],
    ["200 where the whole file is wanted", 0, 1000, give(200)],
  ])("%s", async (_, start, end, how) => {
    answer = how;
    expect((await read(start, end)).equals(BYTES.subarray(start, end))).toBe(true);
    expect(ranges).toEqual([`bytes=${start}-${end - 1}`]);
  });
});

describe("is refused", () => {
  it.each([
    ["another version", "FILE_CHANGED", give(206, { etag: '"v2"' }), 1],
    ["another size", "FILE_CHANGED", give(206, { "content-range": "bytes 100-199/999" }), 1],
    ["416", "FILE_CHANGED", give(416), 1],
    ["200 where a range is wanted", "NETWORK", give(200), 1],
    ["another range, always", "NETWORK", give(206, { "content-range": "bytes 101-200/1000" }), 3],
    ["a range that is not told", "NETWORK", give(206, { "content-range": "" }), 3],
    ["more bytes than wanted", "NETWORK", give(206, {}, BYTES), 1],
    ["404", "ACCESS_REFUSED", give(404), 1],
    ["503, always", "NETWORK", give(503), 3],
  ])("%s", async (_, code, how, requests) => {
    answer = how;
    await expect(read(100, 200)).rejects.toMatchObject({ code });
    expect(ranges.length).toBe(requests);
  });
});

it("a body that drops goes on where it stopped", async () => {
  answer = (request, response) => {
    if (ranges.length > 1) return give(206)(request, response);
    response.writeHead(206, { etag: '"v1"', "content-range": "bytes 100-199/1000", "content-length": "100" });
    response.write(BYTES.subarray(100, 130), () => setImmediate(() => response.destroy()));
  };
  expect((await read(100, 200)).equals(BYTES.subarray(100, 200))).toBe(true);
  expect(ranges).toEqual(["bytes=100-199", "bytes=130-199"]);
});
