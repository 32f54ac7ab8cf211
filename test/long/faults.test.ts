/** The n-th call of the file system fails, for each n, over every command that writes, and over those that only read. */
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { diff } from "../../src/api/diff.ts";
import { download } from "../../src/api/download.ts";
import { inspect } from "../../src/api/inspect.ts";
import { logits } from "../../src/api/logits.ts";
import { importance } from "../../src/api/pruning/importance.ts";
import { prune } from "../../src/api/pruning/prune.ts";
import { scan } from "../../src/api/scan.ts";
import { upload } from "../../src/api/upload.ts";
import { verify } from "../../src/api/verify.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { bytesAt, failEach, removeAll } from "../support/fault-loop.ts";
import { CHANGES, counted, EVERY, withFault } from "../support/faulty-io.ts";
import { filesOf, workFolder } from "../support/goldens.ts";
import { filesOn, put } from "../support/hub/fake.ts";
import { noise, world } from "../support/hub/world.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-");
/** llama.cpp runs no model without layers of these kinds. */
const mixed = await smallModel(join(work, "mixed"), "M-*");
const LEAN: ConvertOptions = { threads: 1, memoryBytes: 2 ** 20, checkpointBytes: 9_000, verify: "off" };

/** Leaves out calls that a part of the destinations makes: a file appears by a link, a folder by a rename. */
const FOR_FILES = EVERY.filter((call) => call !== "rename");

describe("convert and recast", () => {
  it.each<[string, ConvertOptions, readonly string[]]>([
    ["x.isologit", {}, FOR_FILES],
    ["x.gguf", { to: "gguf" }, FOR_FILES],
    ["hf", { to: "hf" }, CHANGES],
    ["fp8", { to: "hf", dtype: "fp8-e4m3", keepEnds: 0 }, CHANGES],
    ["replaced", { to: "hf", dtype: "f32", overwrite: true }, CHANGES],
    ["nemo2", { to: "nemo2" }, CHANGES],
    ["bridge", { to: "bridge" }, CHANGES],
    ["ranks", { to: "megatron", tp: 2 }, CHANGES],
    ["proved.isologit", { verify: "logits", ids: [1, 2, 3] }, CHANGES.filter((call) => call !== "rename")],
  ])("%s", async (name, extra, calls) => {
    const path = join(work, name);
    const options = { ...LEAN, ...extra };
    const source = extra.to === "gguf" ? mixed : model;
    const written = {
      path,
      run: () => convert(source, path, options),
      mend: () => convert(source, path, { ...options, resume: existsSync(`${path}.partial`) }),
      ...(options.overwrite === true && { prepare: () => cpSync(model, path, { recursive: true }) }),
    };
    await failEach(written, calls, "EIO");
    for (const code of ["ENOSPC", "EDQUOT", "EACCES"])
      await failEach(written, ["mkdir", "open", "write"], code);
  });
});

it("prune", async () => {
  const path = join(work, "cut");
  const source = await smallModel(join(work, "deep"), "-M-");
  const options = { drop: [0], ids: [1, 2, 3], to: "hf", threads: 1, checkpointBytes: 9_000 } as const;
  const mend = () => prune(source, path, { ...options, resume: existsSync(`${path}.partial`) });
  await failEach({ path, run: () => prune(source, path, options), mend }, CHANGES, "EIO");
});

it.each(["logits", "importance"] as const)("%s writes its file", async (command) => {
  const path = join(work, `${command}.safetensors`);
  const source = await smallModel(join(work, `for-${command}`), "-M");
  const options = { out: path, ids: [1, 2, 3], threads: 1, overwrite: true };
  const run = () => (command === "logits" ? logits(source, options) : importance(source, options));
  await failEach({ path, run }, EVERY, "EIO");
  await failEach({ path, run }, CHANGES, "ENOSPC");
  expect(readdirSync(work).filter((name) => name.includes(".safetensors"))).toEqual([]);
});

describe("download", () => {
  const here = world(work);
  const FILES = { "config.json": Buffer.from("{}"), "model.safetensors": noise(700_000) };

  it.each(["cache", "folder"])("into the %s", async (where) => {
    put(here.hub, "owner/model", FILES);
    const { settings } = await here.connection();
    const localDir = join(here.home, "local");
    const path = where === "cache" ? join(here.home, "hub", "models--owner--model", "snapshots") : localDir;
    const run = () => download("owner/model", where === "cache" ? { settings } : { settings, localDir });
    const remove = () => rmSync(here.home, { recursive: true, force: true });
    let counts = await counted(run);
    expect(counts.get("open")).toBeGreaterThan(0);
    const right = contentIn(path);
    for (const call of CHANGES) {
      for (let n = 1; n <= (counts.get(call) ?? 0); n++) {
        remove();
        const outcome = await withFault(call, n, "ENOSPC", run);
        if (outcome.status === "rejected") {
          expect(outcome.reason, `${call} ${n}`).toBeInstanceOf(IsologitError);
          expect(outcome.reason.exit, `${call} ${n}: ${outcome.reason.message}`).toBe(4);
          // each file that has its final name is whole
          for (const [file, digest] of contentIn(path)) expect(digest, `${call} ${n}`).toBe(right.get(file));
          await run();
        }
        expect(contentIn(path), `${call} ${n}`).toEqual(right);
      }
    }
    counts = new Map();
  });

  /** The files of the repository, without the notes of the program. */
  function contentIn(path: string): ReadonlyMap<string, string> {
    return new Map([...bytesAt(path)].filter(([name]) => /^([0-9a-f]{40}\/)?[a-z]+\.[a-z]+$/.test(name)));
  }
});

describe("upload", () => {
  const here = world(work);
  const REPO = "owner/mine";
  const FILES = { "config.json": Buffer.from("{}"), "sub/model.safetensors": noise(50_000) };

  it("every call: what is on the Hub is whole, and another run completes it", async () => {
    const folder = join(here.home, "folder");
    for (const [path, bytes] of Object.entries(FILES)) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), bytes);
    }
    const run = async () => {
      const { settings } = await here.connection({ token: "hf_right" });
      return await upload(REPO, folder, { settings, commitFiles: 1 });
    };
    const counts = await counted(run);
    expect(sentFiles()).toEqual(FILES);
    expect(counts.get("open")).toBeGreaterThan(0);
    for (const [call, count] of counts) {
      for (let n = 1; n <= count; n++) {
        here.hub.repositories.clear();
        here.hub.objects.clear();
        const told = `${call} ${n}`;
        const outcome = await withFault(call, n, "EACCES", run);
        for (const [path, bytes] of Object.entries(sentFiles()))
          expect(bytes.equals(FILES[path as keyof typeof FILES]), told).toBe(true);
        if (outcome.status === "rejected") {
          expect(outcome.reason, told).toBeInstanceOf(IsologitError);
          expect(outcome.reason.exit, `${told}: ${outcome.reason.message}`).toBe(4);
          expect(outcome.reason.at.file, told).toMatch(/folder|sub|config|model|uploads/); // and not the repository
        }
        if (outcome.status === "rejected" || call === "rm") await run(); // a journal that cannot be removed is not needed
        expect(sentFiles(), told).toEqual(FILES);
        expect(filesOf(join(here.home, "isologit")).size, told).toBe(0); // no journal is left
      }
    }
  });

  /** What the repository holds. */
  function sentFiles(): Readonly<Record<string, Buffer>> {
    if (!here.hub.repositories.has(REPO)) return {};
    const files = [...filesOn(here.hub, REPO)].filter(([path]) => path in FILES);
    return Object.fromEntries(files.map(([path, { content }]) => [path, content.bytes()]));
  }
});

describe("commands that read end with the right result or an error of exit status 4", () => {
  const packed = join(work, "read.isologit");
  const QUICK = { threads: 1, ids: [1, 2, 3] };
  it.each<[string, () => Promise<unknown>]>([
    ["inspect", () => inspect(packed)],
    ["check", () => check(model)],
    ["scan", () => scan(model)],
    ["diff", () => diff(model, packed)],
    ["verify", async () => (await verify(model, packed, QUICK)).verdict],
  ])("%s", async (_, run) => {
    removeAll(packed);
    await convert(model, packed, LEAN);
    const right = JSON.stringify(await run());
    const counts = await counted(run);
    for (const [call, count] of counts) {
      for (let n = 1; n <= count; n++) {
        const outcome = await withFault(call, n, "EIO", run);
        const told = `${call} ${n}`;
        if (outcome.status === "fulfilled") expect(JSON.stringify(outcome.value), told).toBe(right);
        else {
          expect(outcome.reason, told).toBeInstanceOf(IsologitError);
          expect(outcome.reason.exit, `${told}: ${outcome.reason.message}`).toBe(4);
        }
      }
    }
  });
});
