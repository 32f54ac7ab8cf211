/** The built program against the fake Hub: killed at any point and run again, asked for little, quiet about secrets. */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { beforeEach, describe, expect, it } from "vitest";
import { filesOf, golden, workFolder } from "../support/goldens.ts";
import { filesOn, put } from "../support/hub/fake.ts";
import { every } from "../support/hub/faults.ts";
import { contentAt } from "../support/hub/repository.ts";
import { noise, putFolder, world } from "../support/hub/world.ts";
import { start } from "../support/program.ts";

const work = workFolder();
const here = world(work);
const REPO = "owner/model";

beforeEach(() => {
  here.hub.repositories.clear();
  here.hub.objects.clear();
});

function program(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return start([...args, "--no-progress"], { env: { PATH: process.env.PATH, ...here.env, ...env } });
}
const storage = () => here.hub.seen.filter(({ server }) => server === "storage");

/** Different every time, and said with the tests' names; ISOLOGIT_SEED gives the same again. */
const SEED = Number(process.env.ISOLOGIT_SEED ?? Math.floor(Math.random() * 2 ** 32));
const MOMENTS = [...noise(5, SEED)].map((byte) => byte * 3);

/** A lock of a killed process counts for some seconds more; they are not waited for. */
function ageLocks(): void {
  const folder = join(here.home, "hub", ".locks");
  if (!existsSync(folder)) return;
  for (const path of readdirSync(folder, { recursive: true, encoding: "utf8" }))
    if (path.endsWith(".lock")) utimesSync(join(folder, path), 0, 0);
}

describe(`kill -9, then the same command again (ISOLOGIT_SEED=${SEED})`, () => {
  it.each(MOMENTS)("download, killed after 300 + %i ms", async (ms) => {
    const files = Object.fromEntries(
      [1, 2, 3].map((seed) => [`model-${seed}.safetensors`, noise(4_000_000, seed)]),
    );
    put(here.hub, REPO, { ...files, "config.json": Buffer.from("{}") });
    here.hub.plan = every(/^storage/, { kind: "slow", everyBytes: 100_000, ms: 15 });
    const { child, ended } = program(["download", REPO]);
    await pause(300 + ms);
    child.kill("SIGKILL");
    await ended;
    here.hub.plan = () => undefined;
    ageLocks();
    const cache = join(here.home, "hub", "models--owner--model");
    const blobs = existsSync(join(cache, "blobs")) ? [...filesOf(join(cache, "blobs"))] : [];
    const kept = blobs.reduce((sum, [name]) => sum + readFileSync(join(cache, "blobs", name)).byteLength, 0);
    const again = await program(["download", REPO, "--json"]).ended;
    expect([again.status, again.stderr]).toEqual([0, expect.any(String)]);
    const report = JSON.parse(again.stdout);
    expect(report.fetched + kept).toBe(report.bytes);
    for (const [path, bytes] of Object.entries(files))
      expect(readFileSync(join(report.path, path)).equals(bytes)).toBe(true);
    expect((await program(["cache", "verify"]).ended).status).toBe(0);
  });

  it.each(MOMENTS)("upload, killed after 300 + %i ms", async (ms) => {
    const folder = join(here.home, "folder");
    mkdirSync(folder, { recursive: true });
    for (let seed = 1; seed <= 120; seed++)
      writeFileSync(join(folder, `part-${seed}.bin`), noise(2000, seed));
    const { child, ended } = program(["upload", REPO, folder], { HF_TOKEN: "hf_right" });
    await pause(300 + ms);
    child.kill("SIGKILL");
    await ended;
    await pause(50);
    const known = new Set(here.hub.objects.keys());
    here.hub.seen.length = 0;
    const again = await program(["upload", REPO, folder, "--json"], { HF_TOKEN: "hf_right" }).ended;
    expect([again.status, again.stderr.match(/[A-Z_]+ {2}.*/)]).toEqual([0, null]);
    for (const [path, { content }] of filesOn(here.hub, REPO))
      expect(readFileSync(join(folder, path)).equals(content.bytes())).toBe(true);
    expect(filesOn(here.hub, REPO).size).toBe(120);
    expect(storage().filter(({ url }) => known.has(url.split("/").at(-1)!))).toEqual([]);
  });
});

it("a killed convert continues with the files of the cache", async () => {
  putFolder(here.hub, "owner/sharded", golden("sharded"));
  const out = join(here.home, "out.isologit");
  here.hub.plan = every(/^storage/, { kind: "slow", everyBytes: 50_000, ms: 10 });
  const { child, ended } = program(["convert", "hf://owner/sharded", out, "--verify", "bytes"]);
  await pause(1500);
  child.kill("SIGKILL");
  await ended;
  here.hub.plan = () => undefined;
  const again = await program([
    "convert",
    "hf://owner/sharded",
    out,
    "--verify",
    "bytes",
    "--resume",
    "--json",
  ]).ended;
  expect([again.status, JSON.parse(again.stdout).verification?.verdict]).toEqual([0, "same"]);
});

/** Tensors of an 8B model's shapes in four shards, 16 GB of holes. */
function sparse(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const weight_map: Record<string, string> = {};
  for (let shard = 1; shard <= 4; shard++) {
    const path = `model-0000${shard}-of-00004.safetensors`;
    const tensors = Array.from({ length: 24 }, (_, i) => ({
      name: `layer.${shard}.${i}.weight`,
      dtype: "BF16" as const,
      shape: [4096, 21504],
    }));
    for (const { name } of tensors) weight_map[name] = path;
    let at = 0;
    const entries = tensors.map(({ name, dtype, shape }) => {
      const from = at;
      at += 4096 * 21504 * 2;
      return [name, { dtype, shape, data_offsets: [from, at] }];
    });
    const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.byteLength));
    writeFileSync(join(folder, path), Buffer.concat([length, header]));
    truncateSync(join(folder, path), 8 + header.byteLength + at);
  }
  const total_size = 4 * 24 * 4096 * 21504 * 2;
  writeFileSync(
    join(folder, "model.safetensors.index.json"),
    JSON.stringify({ metadata: { total_size }, weight_map }),
  );
  writeFileSync(join(folder, "config.json"), JSON.stringify({ model_type: "other" }));
}

it.each(["inspect", "check"])("%s of 16 GB transfers headers, and no tensor data", async (command) => {
  const folder = join(here.home, "sparse");
  sparse(folder);
  const shards = readdirSync(folder).filter((path) => path.endsWith(".safetensors"));
  const files = readdirSync(folder).map((path, at) => {
    const where = join(folder, path);
    return [
      path,
      shards.includes(path) ? contentAt(where, `${at}`.repeat(64)) : readFileSync(where),
    ] as const;
  });
  put(here.hub, REPO, Object.fromEntries(files));
  const { status, stdout } = await program([command, `hf://${REPO}`, "--json"]).ended;
  const local = await program([command, folder, "--json"]).ended;
  expect([status, JSON.parse(stdout)]).toEqual([local.status, JSON.parse(local.stdout)]);
  if (command === "inspect") expect(JSON.parse(stdout).bytes).toBeGreaterThan(16e9);
  for (const { range, bytes } of storage()) {
    expect(bytes).toBeLessThan(4096);
    expect(Number(/-(\d+)$/.exec(range!)![1])).toBeLessThan(4096);
  }
  expect(storage().length).toBe(2 * shards.length);
  expect(existsSync(join(here.home, "hub"))).toBe(false);
});

describe("output", () => {
  it("contains no token", async () => {
    put(here.hub, REPO, { "config.json": Buffer.from("{}") });
    for (const args of [
      ["download", REPO, "--token", "hf_wrong"],
      ["download", "owner/none", "--token", "hf_right"],
      ["upload", "owner/none", work, "--token", "hf_wrong", "--verbose"],
    ]) {
      const { status, stdout, stderr } = await program(args).ended;
      expect([status, /hf_(wrong|right)/.test(stdout + stderr)]).toEqual([4, false]);
      expect(stderr).toMatch(/^next: /m);
    }
  });

  it("results on stdout, the rest on stderr", async () => {
    put(here.hub, REPO, { "config.json": Buffer.from("{}"), "model.safetensors": noise(1000) });
    const { stdout, stderr } = await program(["download", REPO]).ended;
    expect(stdout.split("\n").map((line) => line.split(" ")[0])).toEqual([
      "path",
      "commit",
      "files",
      "fetched",
      "time",
      "",
    ]);
    expect(stderr.split("\n").sort()).toEqual([
      "",
      "config.json: 2 B",
      "download: 1002 B",
      "model.safetensors: 1000 B",
    ]);
    const list = await program(["cache", "ls"]).ended;
    expect(list.stdout).toMatch(/owner\/model +[0-9a-f]{12} +main +2 +1002 B +complete/);
  });
});
