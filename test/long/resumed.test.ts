/** Whatever happens to staged files between a stopped run and `resume`: the bytes of a run that nobody disturbed. */
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readHeader } from "../../formats/codec/safetensors.ts";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import { filesOf, workFolder } from "../support/goldens.ts";
import { memorySource } from "../support/memory-store.ts";
import { smallModelWithFiles } from "../support/small.ts";

const work = workFolder();
const model = await smallModelWithFiles(join(work, "model"));
let counter = 0;
const quick = { verify: "bytes", threads: 1, checkpointBytes: 1 } as const;

/** A source of its own, and a conversion of it that stopped when all was written and nothing verified. */
async function stopped(to: "hf" | "packed", more: ConvertOptions = {}) {
  const folder = join(work, String(counter++));
  const [source, destination] = [join(folder, "source"), join(folder, to === "hf" ? "out" : "out.isologit")];
  mkdirSync(folder);
  cpSync(model, source, { recursive: true });
  const stop = new AbortController();
  const options: ConvertOptions = { ...quick, to, ...more };
  const watch: ConvertOptions["watch"] = (event) => {
    if (event.type === "phase" && event.phase === "verify") stop.abort();
  };
  await expect(
    convert(source, destination, { ...options, watch, signal: stop.signal }),
  ).rejects.toMatchObject({
    code: "INTERRUPTED",
  });
  const data = join(`${destination}.partial`, "data");
  return {
    ...{ folder, source, destination, data, options },
    journal: join(`${destination}.partial`, "journal.ndjson"),
    /** the staged weights */
    weights: to === "hf" ? join(data, "model.safetensors") : join(data, "out.isologit"),
  };
}
type Stopped = Awaited<ReturnType<typeof stopped>>;

async function resumed({ source, destination, options }: Stopped) {
  const warnings: string[] = [];
  const watch: ConvertOptions["watch"] = (event) => event.type === "warning" && warnings.push(event.message);
  const report = await convert(source, destination, { ...options, resume: true, watch });
  return { report, warnings };
}

const bytesAt = (path: string) =>
  statSync(path).isDirectory() ? filesOf(path) : new Map([["", readFileSync(path).toString("base64")]]);

/** What a run that nobody disturbs makes, by what it is asked and the source's side file that tests change. */
const right = new Map<string, ReadonlyMap<string, string>>();

async function undisturbed({ source, options }: Stopped): Promise<ReadonlyMap<string, string>> {
  const key = JSON.stringify(options) + readFileSync(join(source, "chat_template.jinja"), "utf8");
  if (!right.has(key)) {
    const path = join(work, String(counter++));
    await convert(source, path, options);
    right.set(key, bytesAt(path));
  }
  return right.get(key)!;
}

async function expectUndisturbed(run: Stopped): Promise<readonly string[]> {
  const { report, warnings } = await resumed(run);
  if (run.options.verify !== "off") expect(["same", "within"]).toContain(report.verification?.verdict);
  expect(bytesAt(run.destination)).toEqual(await undisturbed(run));
  expect(readdirSync(run.folder).filter((name) => name.includes(".partial"))).toEqual([]);
  return warnings;
}

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at < 0 ? bytes.byteLength + at : at]! ^= 1;
  writeFileSync(path, bytes);
}

function moveBehindLink(path: string, other: string): string {
  renameSync(path, other);
  symlinkSync(other, path);
  return path;
}

const zero = (path: string) => writeFileSync(path, Buffer.alloc(statSync(path).size));

// biome-ignore lint/suspicious/noExplicitAny: a line of the journal, of which tests change what they name
type Line = Record<string, any>;

function editJournal(path: string, edit: (entry: Line) => void): void {
  const [head, first, ...rest] = readFileSync(path, "utf8").split("\n");
  const entry = JSON.parse(first!);
  edit(entry);
  writeFileSync(path, [head, JSON.stringify(entry), ...rest].join("\n"));
}

describe("a staged folder that was changed", () => {
  it.each<[string, (run: Stopped) => void]>([
    ["a side file is zeros", ({ data }) => zero(join(data, "chat_template.jinja"))],
    ["a side file has other bytes", ({ data }) => flip(join(data, "tokenizer_config.json"), 3)],
    ["the config is zeros", ({ data }) => zero(join(data, "config.json"))],
    ["a side file is missing", ({ data }) => rmSync(join(data, "generation_config.json"))],
    ["a header has other bytes", ({ weights }) => flip(weights, 40)],
    ["a tensor has other bytes", ({ weights }) => flip(weights, -10)],
    ["all tensors are zeros", ({ weights }) => zero(weights)],
    ["the weights are cut short", ({ weights }) => truncateSync(weights, 5000)],
    ["the weights are longer", ({ weights }) => writeFileSync(weights, "more", { flag: "a" })],
    ["the weights are missing", ({ weights }) => rmSync(weights)],
    ["the journal is missing", ({ journal }) => rmSync(journal)],
    ["the source has another side file now", ({ source }) => flip(join(source, "chat_template.jinja"), 5)],
    [
      "there is an empty folder in place of a file",
      ({ weights }) => {
        rmSync(weights);
        mkdirSync(weights);
      },
    ],
  ])("%s", async (_, change) => {
    const run = await stopped("hf");
    change(run);
    await expectUndisturbed(run);
  });

  it.each<[string, (run: Stopped) => void]>([
    [
      "a digest in the journal",
      ({ journal }) =>
        editJournal(journal, (entry) => {
          entry.sha256 = "0".repeat(64);
        }),
    ],
    [
      "a checksum in the journal",
      ({ journal }) =>
        editJournal(journal, (entry) => {
          entry.crc32[0] ^= 1;
        }),
    ],
    [
      "a name in the journal",
      ({ journal }) =>
        editJournal(journal, (entry) => {
          entry.name = "lm_head.weight";
        }),
    ],
    ["the front", ({ weights }) => flip(weights, 100)],
    ["a tensor", ({ weights }) => flip(weights, -10)],
    ["a certificate behind the end", ({ weights }) => writeFileSync(weights, "{}", { flag: "a" })],
  ])("packed: %s is another", async (_, change) => {
    const run = await stopped("packed");
    change(run);
    await expectUndisturbed(run);
  });

  it("packed: zeros between tensors are not", async () => {
    const run = await stopped("packed", { alignment: 4096 });
    const bytes = readFileSync(run.weights);
    const gap = bytes.lastIndexOf(Buffer.alloc(256));
    expect(gap).toBeGreaterThan(0);
    bytes[gap + 100] = 1;
    writeFileSync(run.weights, bytes);
    await expectUndisturbed(run);
  });

  it("a recast's source digest and scale in the journal are others", async () => {
    for (const edit of [
      (entry: Line) => {
        entry.source.sha256 = "0".repeat(64);
      },
      (entry: Line) => {
        entry.source.scale *= 2;
      },
    ]) {
      const run = await stopped("packed", { dtype: "fp8-e4m3", recipe: "all-linear" });
      const lines = readFileSync(run.journal, "utf8").split("\n");
      const cast = lines.findIndex((line) => line.includes('"scale"'));
      const sorted = [lines[0], lines[cast], ...lines.filter((_, i) => i !== 0 && i !== cast)];
      writeFileSync(run.journal, sorted.join("\n"));
      editJournal(run.journal, edit);
      await expectUndisturbed(run);
    }
  });

  it("of scales of blocks, written with their codes, either is others", async () => {
    const cast = { dtype: "fp8-e4m3", recipe: "all-linear", quantScales: "row" } as const;
    for (const ending of [".weight", ".weight_scale"]) {
      const run = await stopped("hf", cast);
      const lines = readFileSync(run.journal, "utf8").split("\n");
      const name = `up_proj${ending}`;
      expect(lines.filter((line) => line.includes(`${name}"`))).toHaveLength(1);
      const file = new Uint8Array(readFileSync(run.weights));
      const { tensors } = await readHeader(memorySource(run.weights, file));
      flip(run.weights, tensors.find((tensor) => tensor.name.endsWith(name))!.begin);
      await expectUndisturbed(run);
    }
  });

  it("of scales in a packed file, codes or scales are not in the journal", async () => {
    const cast = { dtype: "fp8-e4m3", recipe: "all-linear", quantScales: "row" } as const;
    for (const ending of [".weight", ".weight_scale"]) {
      const run = await stopped("packed", cast);
      const lines = readFileSync(run.journal, "utf8").split("\n");
      writeFileSync(run.journal, lines.filter((line) => !line.includes(`up_proj${ending}"`)).join("\n"));
      await expectUndisturbed(run);
    }
  });

  it("what nobody planned is removed, and named", async () => {
    const run = await stopped("hf");
    writeFileSync(join(run.data, "adapter_config.json"), "{}");
    mkdirSync(join(run.data, "more", "deep"), { recursive: true });
    writeFileSync(join(run.data, "more", "deep", "modeling_evil.py"), "import os\n");
    symlinkSync("/etc/hostname", join(run.data, "linked"));
    copyFileSync(join(run.data, "config.json"), join(run.data, CERTIFICATE_FILE));
    const warnings = await expectUndisturbed(run);
    for (const name of ["adapter_config.json", "linked", "more"]) {
      expect(warnings.filter((text) => text.startsWith(`${name} `)).length, name).toBe(1);
    }
  });

  it("a link to another file is replaced, and the other file stays as it is", async () => {
    for (const link of [symlinkSync, linkSync]) {
      const run = await stopped("hf");
      const other = join(run.folder, "other");
      renameSync(run.weights, other);
      const before = readFileSync(other);
      link(other, run.weights);
      flip(run.weights, -4);
      const flipped = readFileSync(other);
      await expectUndisturbed(run);
      expect(flipped.equals(before)).toBe(false);
      expect(readFileSync(other).equals(flipped)).toBe(true);
    }
  });

  it.each<[string, (run: Stopped, other: string) => string]>([
    ["the staged folder", (run, other) => moveBehindLink(`${run.destination}.partial`, other)],
    ["the folder of its files", ({ data }, other) => moveBehindLink(data, other)],
    ["the journal", ({ journal }, other) => moveBehindLink(journal, other)],
    [
      "the journal, with a second name",
      ({ journal }, other) => {
        linkSync(journal, other);
        return journal;
      },
    ],
    [
      "the journal, a pipe",
      ({ journal }) => {
        rmSync(journal);
        execFileSync("mkfifo", [journal]);
        return journal;
      },
    ],
  ])("a link in place of %s is refused, and what lies behind it stays", async (_, make) => {
    const run = await stopped("hf");
    const other = join(run.folder, "other");
    const file = make(run, other);
    const kept = () => (existsSync(other) ? bytesAt(other) : undefined);
    const before = kept();
    await expect(resumed(run)).rejects.toMatchObject({ code: "STAGING_EXISTS", at: { file } });
    expect(kept()).toEqual(before);
    await convert(run.source, run.destination, { ...run.options, overwrite: true });
    expect(bytesAt(run.destination)).toEqual(await undisturbed(run));
    expect(kept()).toEqual(before);
  });

  it("a journal of gigabytes is believed as far as a run can have written it", async () => {
    const run = await stopped("hf");
    truncateSync(run.journal, 2 ** 32);
    await expectUndisturbed(run);
  });

  it("without a verification too", async () => {
    const run = await stopped("packed");
    flip(run.weights, -10);
    flip(run.weights, 100);
    const warnings = await expectUndisturbed({ ...run, options: { ...run.options, verify: "off" } });
    expect(warnings.join()).toContain("1 staged tensors are not what the earlier run wrote");
  });
});

it("other weights in the source are another model: told, and nothing is published", async () => {
  const run = await stopped("hf");
  const bytes = readFileSync(join(run.source, "model.safetensors"));
  for (let at = bytes.byteLength - 400; at < bytes.byteLength; at += 2) bytes[at]! ^= 0x10;
  writeFileSync(join(run.source, "model.safetensors"), bytes);
  const { report } = await resumed(run);
  expect(report.verification?.verdict).toBe("different");
  expect(existsSync(run.destination)).toBe(false);
  expect(existsSync(run.data)).toBe(true);
});
