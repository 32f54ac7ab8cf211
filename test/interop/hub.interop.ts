/** The Hub's cache and our fake Hub, against Python's own client: each reads what the other wrote. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { cacheLs, cacheVerify } from "../../src/api/cache.ts";
import { download } from "../../src/api/download.ts";
import { upload } from "../../src/api/upload.ts";
import { workFolder } from "../support/goldens.ts";
import { filesOn, put } from "../support/hub/fake.ts";
import { noise, world } from "../support/hub/world.ts";
import { absent, titled } from "./judge.ts";

const work = workFolder();
const here = world(work);
const REPO = "owner/model";
const FILES = {
  "config.json": Buffer.from("{}"),
  "model.safetensors": noise(3_000_000),
  "sub/a b.json": Buffer.from("[1]"),
  "empty.txt": Buffer.alloc(0),
};
const oracle = new URL("../../../shared/oracle/run", import.meta.url).pathname;
const client = new URL("hub.py", import.meta.url).pathname;
let commit = "";

// biome-ignore lint/suspicious/noExplicitAny: each action prints its own object; tests say what they expect of it
type Answer = Record<string, any>;

async function python(
  action: string,
  repo = REPO,
  path = "-",
  env: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const child = spawn(oracle, ["python3", client, action, repo, path], {
    env: {
      PATH: process.env.PATH,
      ...here.env,
      HF_HUB_DISABLE_PROGRESS_BARS: "1",
      HF_HUB_DISABLE_TELEMETRY: "1",
      HF_HUB_DISABLE_UPDATE_CHECK: "1",
      ...env,
    },
  });
  let out = "";
  let talk = "";
  child.stdout.on("data", (text) => {
    out += text;
  });
  child.stderr.on("data", (text) => {
    talk += text;
  });
  const status = await new Promise((resolve) => child.on("close", resolve));
  if (status !== 0) throw new Error(talk);
  return JSON.parse(out.trim().split("\n").at(-1)!);
}

beforeEach(() => {
  here.hub.repositories.clear();
  here.hub.objects.clear();
  commit = put(here.hub, REPO, FILES);
});

function holds(folder: string): void {
  for (const [path, bytes] of Object.entries(FILES))
    expect(readFileSync(join(folder, path)).equals(bytes), path).toBe(true);
}
const asked = () => here.hub.seen.filter(({ server }) => server === "storage").length;

describe.skipIf(absent !== null)(titled("huggingface_hub"), () => {
  it("opens our cache with no network, whole and in part", async () => {
    const { settings } = await here.connection();
    const { path } = await download(REPO, { settings });
    here.hub.seen.length = 0;
    expect(await python("offline")).toEqual({ path });
    expect(await python("offline", REPO, "-", { HF_HUB_OFFLINE: "1" })).toEqual({ path });
    expect(here.hub.seen).toEqual([]);
    expect(await python("scan")).toMatchObject({ repos: { [REPO]: [[commit, ["main"], 4]] }, warnings: [] });
    await python("download");
    expect(asked()).toBe(0);
    await expect(python("offline", "owner/none")).rejects.toThrow("LocalEntryNotFoundError");
  });

  it("knows that a part of a snapshot is a part", async () => {
    const { settings } = await here.connection();
    await download(REPO, { settings, files: ["config.json"] });
    await expect(python("offline")).rejects.toThrow("IncompleteSnapshotError");
    const { path } = await python("download");
    holds(path);
    expect((await cacheVerify(undefined, { settings })).ok).toBe(true);
  });

  it("leaves a cache that we open", async () => {
    const { path } = await python("download");
    holds(path);
    here.hub.seen.length = 0;
    const { settings } = await here.connection({ env: { HF_HUB_OFFLINE: "1" } });
    expect(await download(REPO, { settings })).toMatchObject({ path, fetched: 0 });
    expect((await cacheVerify(undefined, { settings })).ok).toBe(true);
    expect((await cacheLs(undefined, { settings })).repos[0]!.revisions).toEqual([
      { commit, refs: ["main"], files: 4, bytes: 3_000_005, whole: true },
    ]);
    expect(here.hub.seen).toEqual([]);
  });

  it("and we take each other's folders for our own", async () => {
    const { settings } = await here.connection();
    const mine = join(here.home, "mine");
    await download(REPO, { settings, localDir: mine });
    const before = asked();
    await python("local", REPO, mine);
    expect(asked()).toBe(before);
    const theirs = join(here.home, "theirs");
    await python("local", REPO, theirs);
    expect((await download(REPO, { settings, localDir: theirs })).fetched).toBe(0);
    holds(theirs);
  });

  it("finds the fake Hub to be one: lists, downloads, uploads", async () => {
    const token = { HF_TOKEN: "hf_right" };
    const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
    const listed = await python("list", REPO, "-", token);
    expect([listed.sha, listed.user, listed.paths]).toEqual([commit, "owner", Object.keys(FILES).sort()]);
    expect(listed.files["model.safetensors"]).toEqual([3_000_000, sha256(FILES["model.safetensors"])]);
    const folder = join(here.home, "up");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "big.bin"), noise(300_000, 4));
    writeFileSync(join(folder, "small.txt"), "small\n");
    await python("upload", "owner/theirs", folder, token);
    const { settings } = await here.connection({ token: "hf_right" });
    expect(await upload("owner/theirs", folder, { settings })).toMatchObject({ sent: 0, commits: [] });
    await upload("owner/ours", folder, { settings });
    expect(await python("upload", "owner/ours", folder, token)).toEqual({
      commit: here.hub.repositories.get("owner/ours")!.refs.get("main"),
    });
    expect(
      [...filesOn(here.hub, "owner/ours").keys()].filter((path) => path !== ".gitattributes").sort(),
    ).toEqual(["big.bin", "small.txt"]);
  });
});
