/** The Hub goes wrong in every way it can: each heals, or ends in exit 4 with a line that says it, and no wrong file. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { cacheVerify } from "../../src/api/cache.ts";
import { convert } from "../../src/api/convert.ts";
import { download } from "../../src/api/download.ts";
import type { IsologitError } from "../../src/core/errors.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";
import { put } from "../support/hub/fake.ts";
import { every, type Fault, first, type Plan } from "../support/hub/faults.ts";
import { HASTY, noise, putFolder, world } from "../support/hub/world.ts";

const work = workFolder();
const here = world(work);
const REPO = "owner/model";
const LARGE = noise(2_000_000);
const SMALL = Buffer.from(JSON.stringify({ some: "thing" }));

beforeEach(() => {
  here.hub.repositories.clear();
  put(here.hub, REPO, { "config.json": SMALL, "model.safetensors": LARGE });
});

const DATA = /^storage GET \/objects/;
const RESOLVE = /^hub GET \/owner\/model\/resolve\/.*safetensors/;
const SMALLS = /resolve\/.*config/;
const API = /^hub GET \/api\/models/;

async function fetched(): Promise<string> {
  const { settings } = await here.connection();
  return (await download(REPO, { settings })).path;
}

/** Whatever has a final name is what the Hub has. */
async function nothingWrong(): Promise<void> {
  const { findings } = await cacheVerify(undefined, await here.connection());
  expect(findings.filter(({ severity }) => severity === "error")).toEqual([]);
}

const status = (code: number, retryAfter?: string): Fault => ({
  kind: "status",
  status: code,
  ...(retryAfter && { retryAfter }),
});

const HEALS: readonly (readonly [string, Plan])[] = [
  ...[API, RESOLVE, DATA, SMALLS].flatMap((where) => [
    ...[408, 429, 500, 502, 503, 504].map(
      (code) => [`${code} of ${where}`, first(2, where, status(code, "0"))] as const,
    ),
    [`a refused connection at ${where}`, first(2, where, { kind: "refuse" })] as const,
  ]),
  ...[0, 1, 65_536, 1_999_999].map(
    (after) => [`a line cut after ${after} bytes`, first(3, DATA, { kind: "drop", after })] as const,
  ),
  ["a small file's line cut", first(2, SMALLS, { kind: "drop", after: 3 })],
  ["a body that is shorter than asked for, and says so", first(2, DATA, { kind: "truncate", to: 1000 })],
  ["slow bytes", first(1, DATA, { kind: "slow", everyBytes: 200_000, ms: 5 })],
  ["an address that expired", first(2, DATA, status(403))],
  ["another range than requested", first(1, DATA, { kind: "shift", by: -1 })],
  ["one wrong byte, once", first(1, DATA, { kind: "flip", at: 1_000_000 })],
  ["the whole file instead of a range", first(1, DATA, { kind: "whole" })],
];

describe("succeeds after", () => {
  it.each(HEALS)("%s", async (_, plan) => {
    here.hub.plan = plan;
    const path = await fetched();
    expect(readFileSync(join(path, "model.safetensors")).equals(LARGE)).toBe(true);
    expect(readFileSync(join(path, "config.json")).equals(SMALL)).toBe(true);
    await nothingWrong();
  });

  it("a response that breaks off many times, each time after some bytes", async () => {
    here.hub.plan = first(15, DATA, { kind: "drop", after: 100_000 });
    const { settings } = await here.connection();
    expect((await download(REPO, { settings, files: ["model.safetensors"] })).fetched).toBe(LARGE.length);
  });

  it("the pause of Retry-After", async () => {
    here.hub.plan = first(1, DATA, status(429, "1"));
    const { settings } = await here.connection();
    const started = performance.now();
    await download(REPO, { settings: { ...settings, patience: { ...HASTY, longestMs: 5000 } } });
    expect(performance.now() - started).toBeGreaterThan(990);
  });
});

const FAILS: readonly (readonly [string, string, string, Plan])[] = [
  ["a server that always fails", "NETWORK", "the server answers 503", every(DATA, status(503))],
  ["an API that always fails", "NETWORK", "the Hub answers 500", every(API, status(500))],
  ["always too many requests", "NETWORK", "429", every(RESOLVE, status(429, "0"))],
  ["no connection", "NETWORK", "", every(DATA, { kind: "refuse" })],
  [
    "a connection that always breaks off before the first byte",
    "NETWORK",
    "",
    every(DATA, { kind: "drop", after: 0 }),
  ],
  ["another version", "FILE_CHANGED", "has version abc now", every(RESOLVE, { kind: "etag", etag: "abc" })],
  [
    "another version of a small file",
    "FILE_CHANGED",
    "has version abc now",
    every(SMALLS, { kind: "etag", etag: "abc" }),
  ],
  ["another size", "FILE_CHANGED", "the server has 99 bytes now", every(RESOLVE, { kind: "size", size: 99 })],
  [
    "another size in storage",
    "FILE_CHANGED",
    "the server has 99 bytes now",
    every(DATA, { kind: "size", size: 99 }),
  ],
  [
    "a wrong digest",
    "TRANSFER_DAMAGED",
    "it was fetched twice",
    every(DATA, { kind: "flip", at: 1_500_000 }),
  ],
  [
    "a small file with other content",
    "TRANSFER_DAMAGED",
    "it was fetched twice",
    every(SMALLS, { kind: "flip", at: 2 }),
  ],
  ["a refused token", "ACCESS_REFUSED", "may not do this", every(RESOLVE, status(403))],
  [
    "a missing file",
    "NOT_FOUND",
    "no such file",
    every(RESOLVE, { kind: "status", status: 404, code: "EntryNotFound" }),
  ],
];

describe("ends with exit status 4", () => {
  it.each(FAILS)("%s", async (_, code, message, plan) => {
    here.hub.plan = plan;
    const failure: IsologitError = await fetched().catch((error) => error);
    expect([failure.code, failure.exit, failure.message]).toEqual([
      code,
      4,
      expect.stringContaining(message),
    ]);
    expect(failure.next).not.toBe("");
    await nothingWrong();
    here.hub.plan = () => undefined;
    expect(readFileSync(join(await fetched(), "model.safetensors")).equals(LARGE)).toBe(true);
  });

  it.each(["../x.json", "/etc/x.json", "a/../../x", "a\\b.json", "a\nb.json", "C:x.json", "a//b", "./x"])(
    "a file named %j",
    async (name) => {
      put(here.hub, REPO, { [name]: SMALL });
      const failure: IsologitError = await fetched().catch((error) => error);
      expect([failure.code, failure.exit, failure.message]).toEqual([
        "LISTING_UNSAFE",
        4,
        expect.stringContaining(JSON.stringify(name)),
      ]);
      expect(existsSync(join(here.home, "hub"))).toBe(false);
      expect(readdirSync(work).sort()).not.toContain("x.json");
    },
  );

  it("a path that is a file and a folder", async () => {
    put(here.hub, REPO, { "config.json/x": SMALL });
    await expect(fetched()).rejects.toMatchObject({ code: "LISTING_UNSAFE" });
  });
});

/** Digests of what `convert` writes from disk, to be met by every way through the Hub. */
describe("convert writes the same bytes despite network faults", () => {
  const source = golden("tiny");
  const disk = join(work, "disk.isologit");
  const digest = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex");
  const LARGEST = /^storage GET/;
  const ways: readonly (readonly [string, Plan])[] = [
    ["nothing", () => undefined],
    ...[429, 500, 502, 503, 504].map((code) => [`${code}`, first(2, /./, status(code, "0"))] as const),
    ["a refused connection", first(3, /./, { kind: "refuse" })],
    ...[0, 1000, 100_000].map(
      (after) => [`a cut after ${after}`, first(3, LARGEST, { kind: "drop", after })] as const,
    ),
    ["short bodies", first(3, LARGEST, { kind: "truncate", to: 5 })],
    ["slow bytes", first(3, LARGEST, { kind: "slow", everyBytes: 50_000, ms: 2 })],
    ["expired addresses", first(3, LARGEST, status(403))],
    ["a flipped byte in data", first(1, /^storage GET.*/, { kind: "flip", at: 300_000 })],
  ];

  it.each(ways)("%s", async (name, plan) => {
    Object.assign(process.env, here.env);
    putFolder(here.hub, "owner/tiny", source);
    if (!existsSync(disk)) await convert(source, disk, { verify: "off" });
    here.hub.plan = plan;
    const out = join(here.home, "out.isologit");
    await convert("hf://owner/tiny", out, { verify: "off" });
    expect(digest(out), name).toBe(digest(disk));
    await nothingWrong();
  });

  it("a source that changes meanwhile is an error, and nothing is written", async () => {
    Object.assign(process.env, here.env);
    putFolder(here.hub, "owner/tiny", source);
    here.hub.plan = every(/resolve\/.*\/model.safetensors/, { kind: "etag", etag: "other" });
    const out = join(here.home, "out.isologit");
    await expect(convert("hf://owner/tiny", out, { verify: "off" })).rejects.toMatchObject({
      code: "FILE_CHANGED",
    });
    expect(
      existsSync(here.home) ? [...filesOf(here.home).keys()].filter((path) => path.startsWith("out")) : [],
    ).toEqual([]);
  });
});
