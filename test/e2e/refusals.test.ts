/** Wrong input: exit status, code, place and next step of each kind, by the built program, and nothing left behind. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { golden, workFolder } from "../support/goldens.ts";
import { json, shell, start } from "../support/program.ts";

const work = workFolder();
const at = (name: string) => join(work, name);
const destination = at("out/model.isologit");
mkdirSync(at("out"));

/** A copy of a golden with one file spoilt. */
function spoilt(name: string, source: string, spoil: (folder: string) => void): string {
  cpSync(golden(source), at(name), { recursive: true });
  spoil(at(name));
  return at(name);
}

const SHARD = "model-00002-of-00003.safetensors";
const cut = spoilt("cut", "sharded", (folder) => truncateSync(join(folder, SHARD), 70_000));
const noShard = spoilt("no-shard", "sharded", (folder) => rmSync(join(folder, SHARD)));
const badHeader = spoilt("bad-header", "tiny", (folder) => {
  const bytes = readFileSync(join(folder, "model.safetensors"));
  bytes[9] = 0x7d; // a closing brace where the first name opens
  writeFileSync(join(folder, "model.safetensors"), bytes);
});
const otherConfig = spoilt("other-config", "tiny", (folder) => {
  const config = readFileSync(join(folder, "config.json"), "utf8");
  writeFileSync(join(folder, "config.json"), config.replace(/"n_groups": \d+/, '"n_groups": 1'));
});
const nan = spoilt("nan", "tiny", (folder) => {
  const file = join(folder, "model.safetensors");
  const bytes = readFileSync(file);
  const size = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + size));
  const [begin] = header["backbone.layers.2.mixer.in_proj.weight"].data_offsets;
  bytes.writeUInt16LE(0x7fc0, 8 + size + begin + 2 * 77);
  writeFileSync(file, bytes);
});
const hostile = new URL("../../fixtures/hostile/packed/index-digest.isologit", import.meta.url).pathname;
writeFileSync(at("taken.isologit"), "mine");
mkdirSync(at("staged.isologit.partial"));
mkdirSync(at("empty"));

const DST = destination;
const ok = golden("tiny");

describe("a refusal says what, where and what next", () => {
  it.concurrent.each<[string, number, string, object, string[]]>([
    ["a path that is not there", 4, "NOT_FOUND", { file: at("none") }, ["convert", at("none"), DST]],
    [
      "a folder with nothing in it",
      3,
      "FORMAT_UNKNOWN",
      { file: at("empty") },
      ["convert", at("empty"), DST],
    ],
    [
      "a destination that is there",
      2,
      "DESTINATION_EXISTS",
      { file: at("taken.isologit") },
      ["convert", ok, at("taken.isologit")],
    ],
    [
      "files staged by another run",
      2,
      "STAGING_EXISTS",
      { file: at("staged.isologit.partial") },
      ["convert", ok, at("staged.isologit")],
    ],
    ["a damaged header", 3, "HEADER_INVALID", { file: "model.safetensors" }, ["convert", badHeader, DST]],
    ["a shard cut short", 3, "TRUNCATED", { file: SHARD }, ["convert", cut, DST]],
    ["a shard that is not there", 4, "NOT_FOUND", { file: SHARD }, ["convert", noShard, DST]],
    [
      "a config of other weights",
      3,
      "SHAPE_MISMATCH",
      { file: "model.safetensors", tensor: "backbone.layers.0.mixer.in_proj.weight" },
      ["convert", otherConfig, DST],
    ],
    [
      "a hostile packed file",
      3,
      "DIGEST_MISMATCH",
      { file: "index-digest.isologit" },
      ["convert", hostile, at("out/folder"), "--to", "hf"],
    ],
    [
      "a NaN where FP8 is asked for",
      3,
      "NON_FINITE",
      { tensor: "backbone.layers.2.mixer.in_proj.weight", index: 77 },
      ["convert", nan, DST, "--dtype", "fp8-e4m3"],
    ],
    ["a budget too small", 2, "PLAN_MEMORY", {}, ["convert", ok, DST, "--memory", "1kB"]],
    ["an unknown flag", 2, "USAGE", {}, ["convert", ok, DST, "--fast"]],
    ["ranks of what has none", 2, "USAGE", {}, ["convert", ok, DST, "--tp", "2"]],
    ["a promised format", 2, "NOT_WRITTEN", {}, ["convert", ok, at("out/model.nemo")]],
    ["a Hub destination", 2, "USAGE", {}, ["convert", ok, "hf://owner/name", "--to", "hf"]],
  ])("%s: %i %s", async (_, exit, code, place, args) => {
    const { status, report, stderr } = await json(...args, "--quiet");
    expect(report).toEqual({
      error: {
        code,
        message: expect.stringMatching(/./),
        at: expect.objectContaining(place),
        next: expect.stringMatching(/./),
      },
    });
    expect([status, stderr]).toEqual([exit, ""]);
  });

  it("and leaves nothing behind", () => expect(readdirSync(at("out"))).toEqual([]));

  it("in words on stderr, without --json", async () => {
    const { status, stdout, stderr } = await start(["convert", at("none"), DST, "--quiet"]).ended;
    expect([status, stdout]).toEqual([4, ""]);
    expect(stderr).toBe(`NOT_FOUND  no such file or folder, in ${at("none")}\nnext: check the path\n`);
  });

  it("folders that were made for the destination go with it", async () => {
    const deep = at("out/new/folders/model.isologit");
    const { status } = await json("convert", nan, deep, "--dtype", "fp8-e4m3", "--quiet");
    expect(status).toBe(3);
    expect(readdirSync(at("out"))).toEqual([]);
  });
});

describe("a destination never takes its own source with it", () => {
  it.each([
    ["inside", () => ["convert", at("whole"), at("whole/model.isologit")]],
    ["around", () => ["convert", at("whole/sub"), at("whole"), "--to", "hf", "--overwrite"]],
    ["around, by a link", () => ["convert", at("link/sub"), at("whole"), "--to", "hf", "--overwrite"]],
    ["the same", () => ["convert", at("link"), at("whole"), "--to", "hf", "--overwrite"]],
    ["staged for it", () => ["convert", at("whole.partial/data"), at("whole"), "--to", "hf", "--overwrite"]],
  ])("%s", async (_, args) => {
    for (const copy of ["whole", "whole/sub", "whole.partial/data"])
      cpSync(ok, at(copy), { recursive: true });
    const { status, report } = await shell(
      `ln -sfn whole ${at("link")}; isologit ${args().join(" ")} --verify off --json --quiet`,
    ).then((ended) => ({ ...ended, report: JSON.parse(ended.stdout) }));
    expect([status, report.error?.code]).toEqual([2, "USAGE"]);
    expect(existsSync(join(args()[1]!, "model.safetensors"))).toBe(true);
  });
});

describe("the world outside", () => {
  it("a reader that has gone is no failure, and nothing is said", async () => {
    const { status, stderr } = await shell(
      `isologit inspect ${golden("moe")} --tensors | true; exit \${PIPESTATUS[0]}`,
    );
    expect([status, stderr]).toEqual([0, ""]);
  });

  it.each(["formats", "--version"])("output of %s that cannot be written is", async (line) => {
    const { status, stderr } = await shell(`isologit ${line} >/dev/full`);
    expect(status).toBe(4);
    expect(stderr).toContain("IO_FAILED");
  });

  it("a full disk exits 4, and --resume completes the same bytes", async () => {
    const [whole, full] = [at("whole.isologit"), at("full.isologit")];
    const line = (dst: string) => `isologit convert ${ok} ${dst} --verify off --json --quiet`;
    expect((await shell(line(whole))).status).toBe(0);
    const { status, stdout } = await shell(`ulimit -f 64; ${line(full)}`);
    expect([status, JSON.parse(stdout).error.code]).toEqual([4, "DISK_FULL"]);
    expect([existsSync(full), existsSync(`${full}.partial`)]).toEqual([false, true]);
    expect((await shell(`${line(full)} --resume`)).status).toBe(0);
    expect(readFileSync(full).equals(readFileSync(whole))).toBe(true);
    expect(existsSync(`${full}.partial`)).toBe(false);
  });
});
