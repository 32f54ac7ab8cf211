/** Every trap through the command line: the ending that is written down for it, nothing run, nothing written. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import * as library from "../../src/index.ts";
import { run } from "../support/fake-library.ts";
import { workFolder } from "../support/goldens.ts";

const hostile = new URL("../../fixtures/hostile/pickles/", import.meta.url).pathname;
const read = (name: string) => JSON.parse(readFileSync(join(hostile, name), "utf8"));

/** What the makers of the traps ask for. */
interface Trap {
  readonly file: string;
  readonly expect: string;
  readonly why: string;
}
const { cases }: { readonly cases: readonly Trap[] } = read("manifest.json");

/** How each ends: a code of an error, or "ok"; and the rules that `scan` finds broken. */
interface Ending {
  readonly inspect: string;
  readonly convert: string;
  readonly scan: readonly string[];
  /** of a torch file where a reader opens it: as the weights of a NeMo 1 model */
  readonly asWeights?: string;
}
const endings: Readonly<Record<string, Ending>> = read("expected.json");

const work = workFolder();
const MARKER = "ISOLOGIT_PWNED";
/** What only resembles the traps ends well. */
const SOUND = "ok";
const MAX_CPU_SECONDS = 2;

/** The code it ended with, after it is seen to end as an error should. */
async function ended(...line: readonly string[]): Promise<string> {
  const started = process.cpuUsage();
  const { status, stdout, stderr } = await run([...line, "--json"], { over: library });
  const { user, system } = process.cpuUsage(started);
  expect((user + system) / 1e6).toBeLessThan(MAX_CPU_SECONDS);
  expect(stdout + stderr).not.toMatch(/^\s+at /m);
  const { error } = JSON.parse(stdout);
  if (error === undefined) {
    expect(status).toBe(0);
    return SOUND;
  }
  expect(status, error.code).toBe(error.code === "NOT_FOUND" ? 4 : 3);
  expect(error.at.file).toEqual(expect.any(String));
  return error.code;
}

async function rulesOf(path: string): Promise<string[]> {
  const { status, json, stderr } = await run(["scan", path, "--json"], { over: library });
  const { ok, findings } = json() as { ok: boolean; findings: { rule: string }[] };
  expect(status, stderr).toBe(ok ? 0 : 1);
  return [...new Set(findings.map(({ rule }) => rule))].sort();
}

/** The trap as the weights of a NeMo 1 model that is unpacked. */
function asWeights(file: string): string {
  const folder = join(work, `${file}.d`);
  mkdirSync(folder);
  writeFileSync(join(folder, "model_config.yaml"), "hidden_size: 4\n");
  cpSync(join(hostile, file), join(folder, "model_weights.ckpt"));
  return folder;
}

describe("every trap", () => {
  it("has its ending", () => {
    expect(cases).toHaveLength(92);
    expect(Object.keys(endings).sort()).toEqual(cases.map(({ file }) => file).sort());
  });

  it.each(cases)("$file: $expect, $why", async ({ file, expect: wanted }) => {
    const path = join(hostile, file);
    const out = join(work, file.replaceAll(".", "-"));
    mkdirSync(out);
    const ending: Ending = {
      inspect: await ended("inspect", path),
      convert: await ended("convert", path, join(out, "model"), "--to", "hf", "--verify", "off"),
      scan: await rulesOf(path),
      ...(file.endsWith(".pt") && {
        asWeights: await ended("inspect", asWeights(file)),
      }),
    };
    expect(ending).toEqual(endings[file]);
    if (wanted === "refuse") expect([ending.inspect, ending.asWeights]).not.toContain(SOUND);
    if (wanted === SOUND) expect([ending.asWeights ?? ending.inspect, ending.scan]).toEqual([SOUND, []]);
    expect(ending.convert).not.toBe(SOUND); // none of them is a model
    expect(readdirSync(out)).toEqual([]);
    for (const folder of [process.cwd(), hostile, work, out, "/tmp"])
      expect(existsSync(join(folder, MARKER)), folder).toBe(false);
    expect(Object.keys(Object.prototype)).toEqual([]);
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });
});
