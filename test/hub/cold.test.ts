/**
 * Every command that reads `hf://`, with its default flags and nothing in the cache: it answers as for the same files on
 * disk. The repository has several shards, a tokenizer, a chat template and remote code.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { library } from "../../bin/on-demand.ts";
import { loadCommands } from "../../src/cli/commands/index.ts";
import { run } from "../support/fake-library.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";
import { type FakeHub, put } from "../support/hub/fake.ts";
import { putFolder, world } from "../support/hub/world.ts";
import { start } from "../support/program.ts";

const commands = await loadCommands();

const work = workFolder();
const here = world(work);
const REPO = "owner/model";
const SOURCE = golden("sharded");

/** A command's words, for a source at this address. */
const READERS: Readonly<Record<string, (address: string, out: string) => readonly string[]>> = {
  convert: (address, out) => [address, out, "--to", "hf"],
  recast: (address, out) => [address, out, "--dtype", "fp8-e4m3"],
  verify: (address) => [address, SOURCE],
  inspect: (address) => [address],
  check: (address) => [address],
  diff: (address) => [SOURCE, address],
  scan: (address) => [address],
  plan: (address, out) => [address, out, "--to", "nemo2"],
  logits: (address, out) => [address, "--out", out],
  generate: (address) => [address, "--prompt", "A lamp"],
  importance: (address, out) => [address, "--tokens", "8", "--out", out],
  prune: (address, out) => [address, out, "--to", "hf", "--drop", "1", "--tokens", "8"],
};
/** They read a source more than once, and keep what they fetch. */
const KEEPING = ["convert", "recast", "verify", "prune"];
const NAMES = Object.keys(READERS);

beforeEach(() => {
  for (const name of ["HF_HUB_OFFLINE", "HF_TOKEN"]) delete process.env[name];
  Object.assign(process.env, here.env);
  here.hub.repositories.clear();
  here.hub.objects.clear();
});

/** Every file of the source below a folder of the repository, and a commit on top that has nothing to do with it. */
function putBelow(hub: FakeHub, folder: string): string {
  const files = [...filesOf(SOURCE).keys()].map((path) => [
    `${folder}/${path}`,
    readFileSync(join(SOURCE, path)),
  ]);
  return put(hub, REPO, Object.fromEntries(files));
}

interface Answer {
  readonly status: number | null;
  /** without what differs from run to run, and from place to place */
  readonly report: unknown;
  readonly written: unknown;
  readonly stderr: string;
}

/** A certificate names the commit of a source on the Hub, and so has another digest. */
const VOLATILE = /^(seconds|promptSeconds|peakRssBytes|plan|id|address|path|out|sha256)$/;
const steady = (text: string): unknown => {
  const report = JSON.parse(text, (key, value) =>
    VOLATILE.test(key) && typeof value !== "object" ? undefined : value,
  );
  if (report.verification != null) delete report.destination.bytes; // the certificate's among them
  delete report.run; // what tasks need: paths, commits and times
  return report;
};

let runs = 0;
async function ask(name: string, address: string, inside = true): Promise<Answer> {
  const out = join(work, `out-${runs++}`);
  const argv = [name, ...READERS[name]!(address, out), "--json"];
  const { status, stdout, stderr } = inside
    ? await run(argv, { over: library })
    : await start(argv, { env: { PATH: process.env.PATH, ...here.env } }).ended;
  const written = !existsSync(out)
    ? null
    : name === "logits" || name === "importance"
      ? readFileSync(out, "base64")
      : [...filesOf(out)];
  rmSync(out, { recursive: true, force: true });
  return { status, stderr, written, report: steady(stdout) };
}

const expected = new Map<string, Answer>();
beforeAll(async () => {
  for (const name of NAMES) expected.set(name, await ask(name, SOURCE));
  expect([...expected].filter(([, { status }]) => status !== 0)).toEqual([]);
});

async function expectAsOnDisk(name: string, address: string, inside?: boolean): Promise<void> {
  const { stderr, ...answer } = await ask(name, address, inside);
  const { stderr: _, ...onDisk } = expected.get(name)!;
  expect(answer, stderr).toEqual(onDisk);
}

it("the table has every command that reads a checkpoint", () => {
  const places = /^(SRC|PATH|A)$/;
  const reading = commands
    .filter((one) => places.test(one.positionals[0]?.name ?? "") && one.name !== "doctor") // it looks beside local paths
    .map(({ name }) => name);
  expect(NAMES.toSorted()).toEqual(reading.toSorted());
});

describe("from an empty cache, with the command line", () => {
  it.each(NAMES)("%s", async (name) => {
    putFolder(here.hub, REPO, SOURCE);
    await expectAsOnDisk(name, `hf://${REPO}`, !KEEPING.includes(name));
    expect(existsSync(join(here.home, "hub"))).toBe(KEEPING.includes(name));
  });
});

describe("a tag and a folder, from an empty cache, then offline", () => {
  it.each(NAMES)("%s", async (name) => {
    putBelow(here.hub, "models/a");
    const { refs } = here.hub.repositories.get(REPO)!;
    refs.set("v1", refs.get("main")!);
    put(here.hub, REPO, { "models/a/config.json": Buffer.from("{}") });
    const address = `hf://${REPO}@v1/models/a`;
    await expectAsOnDisk(name, address);
    process.env.HF_HUB_OFFLINE = "1";
    here.hub.seen.length = 0;
    if (KEEPING.includes(name)) await expectAsOnDisk("inspect", address);
    else
      expect(await ask(name, address)).toMatchObject({ status: 4, report: { error: { code: "OFFLINE" } } });
    expect(here.hub.seen).toEqual([]);
  });
});

describe("the cache commands, upload and --like", () => {
  const isologit = (...argv: string[]) => run([...argv, "--json"], { over: library });

  it("download fills the cache for every command, ls and verify find it complete, rm empties it", async () => {
    putFolder(here.hub, REPO, SOURCE);
    const download = await isologit("download", `hf://${REPO}`);
    expect([download.status, download.json().files.length]).toEqual([0, filesOf(SOURCE).size]);
    process.env.HF_HUB_OFFLINE = "1";
    here.hub.seen.length = 0;
    for (const name of NAMES.filter((one) => !/convert|recast/.test(one)))
      await expectAsOnDisk(name, `hf://${REPO}`);
    expect((await isologit("cache", "ls")).json().repos).toMatchObject([
      { repo: REPO, revisions: [{ refs: ["main"], whole: true }] },
    ]);
    expect((await isologit("cache", "verify", `hf://${REPO}`)).json()).toMatchObject({ ok: true });
    expect((await isologit("cache", "rm", `hf://${REPO}`)).status).toBe(0);
    expect((await isologit("inspect", `hf://${REPO}`)).json()).toMatchObject({ error: { code: "OFFLINE" } });
    expect(here.hub.seen).toEqual([]);
  });

  it("uploads a converted model, and converts the uploaded one", async () => {
    putFolder(here.hub, REPO, SOURCE);
    process.env.HF_TOKEN = "hf_right";
    const [packed, home] = [join(here.home, "m.isologit"), join(here.home, "back")];
    for (const argv of [
      ["convert", `hf://${REPO}`, packed],
      ["upload", "hf://owner/packed", packed],
      ["convert", "hf://owner/packed/m.isologit", home, "--to", "hf"],
      ["verify", `hf://${REPO}`, "hf://owner/packed/m.isologit", "--verify", "bytes"],
    ]) {
      const { status, stdout, stderr } = await isologit(...argv);
      expect([argv, status, stdout + stderr]).toEqual([argv, 0, expect.any(String)]);
    }
    const { "README.md": _, ...files } = Object.fromEntries(filesOf(home));
    expect(files).toEqual(Object.fromEntries(filesOf(SOURCE)));
  });

  it("--like hf://…", async () => {
    putFolder(here.hub, "owner/like", golden("nemo2-tiny/hf"));
    const [out, onDisk] = [join(here.home, "hub"), join(here.home, "disk")];
    for (const [dst, like] of [
      [out, "hf://owner/like"],
      [onDisk, golden("nemo2-tiny/hf")],
    ] as const) {
      const { status, stderr } = await isologit(
        ...["convert", golden("nemo2-tiny"), dst, "--to", "hf", "--like", like, "--verify", "bytes"],
      );
      expect([status, stderr]).toEqual([0, expect.any(String)]);
    }
    expect(filesOf(out)).toEqual(filesOf(onDisk));
  });
});
