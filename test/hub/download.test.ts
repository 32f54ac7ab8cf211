/** `download`: the cache as Python lays it out, resumption at the byte, digests, locks, folders of one's own. */
import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { cacheLs, cacheRm, cacheVerify } from "../../src/api/cache.ts";
import { type DownloadOptions, download } from "../../src/api/download.ts";
import type { Event } from "../../src/core/events.ts";
import { workFolder } from "../support/goldens.ts";
import { put } from "../support/hub/fake.ts";
import { first } from "../support/hub/faults.ts";
import { noise, world } from "../support/hub/world.ts";

const work = workFolder();
const here = world(work);
const REPO = "owner/model";
const LARGE = noise(3_000_000);
const FILES = {
  "README.md": Buffer.from("# model\n"),
  "config.json": Buffer.from("{}"),
  "empty.txt": Buffer.alloc(0),
  "model.safetensors": LARGE,
  "sub/deep/é ü+%.json": Buffer.from("[]"),
  "sub/model.safetensors": noise(700_000, 2),
};
let commit = "";

beforeEach(() => {
  here.hub.repositories.clear();
  commit = put(here.hub, REPO, FILES);
});

async function fetch(options: DownloadOptions & { env?: Record<string, string> } = {}) {
  const { settings } = await here.connection({ env: options.env ?? {} });
  return await download(REPO, { settings, ...options });
}

const root = () => join(here.home, "hub", "models--owner--model");
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const git = (bytes: Uint8Array) =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
const stored = () => here.hub.seen.filter(({ server }) => server === "storage");
const came = () => stored().reduce((sum, { bytes }) => sum + bytes, 0);

it("writes blobs, links, refs and the listing like Python", async () => {
  const report = await fetch();
  expect(report).toMatchObject({
    repo: REPO,
    commit,
    revision: "main",
    path: join(root(), "snapshots", commit),
  });
  expect(readFileSync(join(root(), "refs", "main"), "utf8")).toBe(commit);
  for (const [path, bytes] of Object.entries(FILES)) {
    const pointer = join(root(), "snapshots", commit, path);
    const name = path.endsWith(".safetensors") ? sha256(bytes) : git(bytes);
    expect(lstatSync(pointer).isSymbolicLink()).toBe(true);
    expect(readlinkSync(pointer)).toBe(`${"../".repeat(path.split("/").length + 1)}blobs/${name}`);
    expect(readFileSync(pointer).equals(bytes)).toBe(true);
  }
  expect(readdirSync(join(root(), "blobs")).length).toBe(6);
  const tree = JSON.parse(readFileSync(join(root(), "trees", `${commit}.json`), "utf8"));
  expect(tree.format_version).toBe(1);
  expect(tree.files["model.safetensors"]).toMatchObject({
    size: LARGE.length,
    lfs_sha256: sha256(LARGE),
    lfs_size: LARGE.length,
  });
  expect(readFileSync(join(here.home, "hub", "CACHEDIR.TAG"), "utf8")).toMatch(
    /^Signature: 8a477f597d28d172789f06886806bc55\n/,
  );
  expect(readdirSync(join(here.home, "hub", ".locks", "models--owner--model"))).toEqual([]);
});

it("downloads nothing twice, and nothing offline", async () => {
  const [one, two] = [await fetch(), await fetch()];
  expect([one.fetched, two.fetched, came()]).toEqual([one.bytes, 0, 3_700_000]);
  here.hub.seen.length = 0;
  const offline = await fetch({ env: { HF_HUB_OFFLINE: "1" } });
  expect([offline.path, here.hub.seen]).toEqual([one.path, []]);
  await expect(fetch({ env: { HF_HUB_OFFLINE: "1" }, revision: "v2" })).rejects.toMatchObject({
    code: "OFFLINE",
  });
});

describe("a dry run", () => {
  it("fetches and writes nothing, and says what is missing", async () => {
    const bytes = Object.values(FILES).reduce((sum, file) => sum + file.byteLength, 0);
    const before = await fetch({ dryRun: true });
    expect(before).toMatchObject({ dryRun: true, commit, bytes, fetched: bytes });
    expect(existsSync(root())).toBe(false);
    await fetch({ files: ["model.safetensors"] });
    const after = await fetch({ dryRun: true });
    expect(after.fetched).toBe(bytes - LARGE.byteLength);
    expect(after.files.find(({ path }) => path === "model.safetensors")?.fetched).toBe(0);
    expect((await fetch()).fetched).toBe(after.fetched);
    expect((await fetch({ dryRun: true })).fetched).toBe(0);
  });

  it("into a folder, where files are and in the cache", async () => {
    const localDir = join(here.home, "mine");
    expect((await fetch({ dryRun: true, localDir, include: ["*.json"] })).fetched).toBe(4);
    expect(existsSync(localDir)).toBe(false);
    await fetch({ localDir, include: ["*.json"] });
    expect((await fetch({ dryRun: true, localDir, include: ["*.json"] })).fetched).toBe(0);
    writeFileSync(join(localDir, "config.json"), "[]");
    const later = Date.now() / 1000 + 10;
    utimesSync(join(localDir, "config.json"), later, later);
    expect((await fetch({ dryRun: true, localDir, include: ["*.json"] })).fetched).toBe(2);
  });
});

it("for a new commit, downloads the new files only", async () => {
  await fetch();
  const next = put(here.hub, REPO, { "config.json": Buffer.from('{"a":1}') });
  const report = await fetch();
  expect([report.commit, report.fetched]).toEqual([next, 7]);
  expect(
    (await cacheLs(undefined, await here.connection())).repos[0]!.revisions.map((one) => [
      one.commit,
      one.refs,
      one.whole,
    ]),
  ).toEqual(
    [
      [commit, [], true],
      [next, ["main"], true],
    ].sort(),
  );
});

describe("choice of files", () => {
  it.each([
    [{ include: ["*.safetensors"] }, ["model.safetensors", "sub/model.safetensors"]],
    [{ include: ["sub/"] }, ["sub/deep/é ü+%.json", "sub/model.safetensors"]],
    [{ exclude: ["*.safetensors", "sub/*"] }, ["README.md", "config.json", "empty.txt"]],
    [{ include: ["*.json", "README.md"], exclude: ["sub/**"] }, ["README.md", "config.json"]],
    [{ files: ["config.json"] }, ["config.json"]],
    [{ include: ["model.[s]afetensors"] }, ["model.safetensors"]],
  ])("%j", async (options: DownloadOptions, paths) => {
    const report = await fetch(options);
    expect(report.files.map(({ path }) => path)).toEqual(paths);
    if (options.files) expect(report.path).toBe(join(root(), "snapshots", commit, "config.json"));
  });

  it.each([
    [{ files: ["none.json"] }, "NOT_FOUND", "has no such file"],
    [{ include: ["*.gguf"] }, "NOT_FOUND", "no file of the repository matches"],
    [{ files: ["config.json"], include: ["*"] }, "USAGE", "files and patterns"],
    [{ revision: "none" }, "NOT_FOUND", "has no revision"],
  ])("%j is refused", async (options: DownloadOptions, code, message) => {
    const failure = await fetch(options).catch((error) => error);
    expect([failure.code, failure.message]).toEqual([code, expect.stringContaining(message)]);
  });
});

describe("continues an interrupted download", () => {
  const partial = () => join(root(), "blobs", `${sha256(LARGE)}.incomplete`);
  const leave = (bytes: Uint8Array) => {
    mkdirSync(dirname(partial()), { recursive: true });
    writeFileSync(partial(), bytes);
  };

  it("after the last byte", async () => {
    leave(LARGE.subarray(0, 1_234_567));
    const report = await fetch({ files: ["model.safetensors"] });
    expect([report.fetched, came()]).toEqual([LARGE.length - 1_234_567, LARGE.length - 1_234_567]);
    expect(readFileSync(report.path).equals(LARGE)).toBe(true);
  });

  it("downloads a damaged partial file again", async () => {
    leave(noise(1_000_000, 9));
    const report = await fetch({ files: ["model.safetensors"] });
    expect(report.fetched).toBe(2 * LARGE.length - 1_000_000);
    expect(readFileSync(report.path).equals(LARGE)).toBe(true);
    expect(existsSync(partial())).toBe(false);
  });

  it("downloads a partial file that is too long again", async () => {
    leave(Buffer.concat([LARGE, LARGE]));
    expect((await fetch({ files: ["model.safetensors"] })).fetched).toBe(LARGE.length);
  });

  it("stops at the signal, and continues", async () => {
    const over = new AbortController();
    here.hub.plan = first(1, /objects/, { kind: "slow", everyBytes: 65536, ms: 5 });
    let bytes = 0;
    const watch = (event: Event) => {
      if (event.type === "advance") bytes += event.bytes;
      if (bytes > 500_000) over.abort();
    };
    await expect(fetch({ files: ["model.safetensors"], watch, signal: over.signal })).rejects.toMatchObject({
      code: "INTERRUPTED",
    });
    const kept = lstatSync(partial()).size;
    expect(kept).toBeGreaterThan(500_000);
    expect((await fetch({ files: ["model.safetensors"] })).fetched).toBe(LARGE.length - kept);
  });
});

it("a second process waits and uses the file of the first", async () => {
  here.hub.plan = first(1, /objects/, { kind: "slow", everyBytes: 400_000, ms: 50 });
  const warnings: string[] = [];
  const watch = (event: Event) => void (event.type === "warning" && warnings.push(event.message));
  const files = ["model.safetensors"];
  const [one, two] = await Promise.all([fetch({ files, watch }), fetch({ files, watch })]);
  expect([one.fetched, two.fetched].sort()).toEqual([0, LARGE.length]);
  expect(warnings).toEqual([expect.stringContaining("another process")]);
});

it("replaces the lock of a dead process", async () => {
  const lock = join(here.home, "hub", ".locks", "models--owner--model", `${sha256(LARGE)}.isologit.lock`);
  mkdirSync(dirname(lock), { recursive: true });
  writeFileSync(lock, "4711 elsewhere\n");
  utimesSync(lock, new Date(0), new Date(0));
  expect((await fetch({ files: ["model.safetensors"] })).fetched).toBe(LARGE.length);
});

describe("a folder of the user", () => {
  const folder = () => join(here.home, "mine");

  it("contains files and metadata; the cache stays empty", async () => {
    const report = await fetch({ localDir: folder() });
    expect(report.path).toBe(folder());
    for (const [path, bytes] of Object.entries(FILES)) {
      expect(readFileSync(join(folder(), path)).equals(bytes)).toBe(true);
      const [at, etag, seconds] = readFileSync(
        join(folder(), ".cache/huggingface/download", `${path}.metadata`),
        "utf8",
      ).split("\n");
      expect([at, etag]).toEqual([commit, path.endsWith(".safetensors") ? sha256(bytes) : git(bytes)]);
      expect(Math.abs(Number(seconds) - Date.now() / 1000)).toBeLessThan(60);
    }
    expect(existsSync(join(here.home, "hub"))).toBe(false);
    expect((await fetch({ localDir: folder() })).fetched).toBe(0);
  });

  it("downloads a changed file again, but not a correct file without metadata", async () => {
    await fetch({ localDir: folder() });
    truncateSync(join(folder(), "config.json"));
    rmSync(join(folder(), ".cache"), { recursive: true });
    expect((await fetch({ localDir: folder() })).fetched).toBe(2);
    expect(readFileSync(join(folder(), "config.json"), "utf8")).toBe("{}");
  });

  it("copies files from the cache", async () => {
    await fetch();
    expect((await fetch({ localDir: folder() })).fetched).toBe(0);
    expect(readFileSync(join(folder(), "model.safetensors")).equals(LARGE)).toBe(true);
  });
});

describe("cache", () => {
  it("verify finds a changed byte and a missing blob", async () => {
    await fetch();
    const settings = await here.connection();
    expect(await cacheVerify(undefined, settings)).toEqual({
      ok: true,
      blobs: 6,
      bytes: 3_700_012,
      findings: [],
    });
    const blob = join(root(), "blobs", sha256(LARGE));
    writeFileSync(
      blob,
      LARGE.map((byte, at) => (at === 99 ? byte ^ 1 : byte)),
    );
    rmSync(join(root(), "blobs", git(FILES["config.json"])));
    const { ok, findings } = await cacheVerify(REPO, settings);
    expect([ok, findings.map(({ rule, at }) => [rule, at.file.split("/").at(-1)])]).toEqual([
      false,
      [
        ["digest", sha256(LARGE)],
        ["dangling", "config.json"],
      ],
    ]);
  });

  it("rm removes a revision with the blobs that only it uses, then the repository", async () => {
    await fetch();
    const next = put(here.hub, REPO, { "model.safetensors": noise(1000, 5) });
    await fetch();
    const settings = await here.connection();
    expect(await cacheRm(`${REPO}@${commit}`, settings)).toEqual({
      removed: [`${REPO}@${commit}`],
      bytes: LARGE.length,
    });
    expect((await cacheLs(REPO, settings)).repos[0]!.revisions.map((one) => [one.commit, one.whole])).toEqual(
      [[next, true]],
    );
    expect((await cacheVerify(REPO, settings)).ok).toBe(true);
    await cacheRm(`${REPO}@main`, settings);
    expect((await cacheLs(undefined, settings)).repos).toEqual([]);
    await expect(cacheRm(REPO, settings)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});
