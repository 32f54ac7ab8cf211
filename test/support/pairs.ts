/** Two processes on one destination, at seeded moments: each outcome is one whole destination, or a refusal. */
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { filesOf } from "./goldens.ts";
import { type Ended, start } from "./program.ts";
import { randomFrom } from "./random.ts";
import { smallModel } from "./small.ts";

export interface World {
  readonly folder: string;
  readonly model: string;
  /** what an undisturbed run makes, by format and dtype */
  readonly right: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

const FORMATS = ["hf", "packed"] as const;
const DTYPES = ["keep", "f32"] as const;
const FLAGS = [[], ["--resume"], ["--overwrite"], ["--resume", "--overwrite"]] as const;
const REFUSALS = ["DESTINATION_BUSY", "DESTINATION_EXISTS", "STAGING_EXISTS", "PLAN_CHANGED"];

export async function worldOf(folder: string): Promise<World> {
  // some 6 MB, so that a run has a length
  const model = await smallModel(join(folder, "model"), "M-", { hidden_size: 256, vocab_size: 4000 });
  const right = new Map<string, ReadonlyMap<string, string>>();
  for (const to of FORMATS) {
    for (const dtype of DTYPES) {
      const path = join(folder, `right-${to}-${dtype}`);
      await convert(model, path, { to, dtype, verify: "bytes" });
      right.set(`${to} ${dtype}`, bytesAt(path));
    }
  }
  return { folder, model, right };
}

function bytesAt(path: string): ReadonlyMap<string, string> {
  return statSync(path).isDirectory() ? filesOf(path) : new Map([["", readFileSync(path, "base64")]]);
}

/** What two processes made of it, in a few words. */
export async function runPair({ folder, model, right }: World, seed: number): Promise<string> {
  const random = randomFrom(seed);
  const pick = <T>(choices: readonly T[]): T => choices[random(choices.length)]!;
  const home = join(folder, `pair-${seed}`);
  mkdirSync(home);
  const to = pick(FORMATS);
  const destination = join(home, to === "hf" ? "out" : "out.isologit");
  const before = await prepare(pick(["nothing", "staged", "finished"] as const), model, destination, to);
  const staged = linesOf(destination);

  const runs = [0, 1].map(() => ({ flags: pick(FLAGS), dtype: random(4) === 0 ? "f32" : "keep" }));
  const kills = random(4) === 0;
  const told = `seed ${seed}: ${to}, ${before}, ${runs.map((run) => `${run.dtype} ${run.flags.join(" ")}`).join(" | ")}`;
  const processes = [];
  for (const { flags, dtype } of runs) {
    const common = ["--to", to, "--dtype", dtype, "--verify", "bytes", "--threads", "1", "--memory", "1MiB"];
    processes.push(start(["convert", model, destination, ...common, "--json", "--no-progress", ...flags]));
    if (processes.length === 1) await sleep(random(2) === 0 ? random(60) : random(1200));
  }
  if (kills) {
    await sleep(300 + random(700));
    processes[0]!.child.kill("SIGKILL");
  }
  const ended = await Promise.all(processes.map(({ ended }) => ended));
  const outcomes = ended.map((each) => outcomeOf(each, told));
  const succeeded = outcomes.filter((outcome) => outcome === "done").length;

  if (existsSync(destination)) {
    const choices = DTYPES.map((dtype) => right.get(`${to} ${dtype}`)!);
    expect(choices, told).toContainEqual(bytesAt(destination));
    expect((await verify(destination, undefined, { verify: "bytes", threads: 1 })).verdict, told).toBe(
      "same",
    );
  } else {
    expect(succeeded, told).toBe(0);
    expect(before, told).not.toBe("finished");
  }
  if (succeeded === 0 && !outcomes.includes("killed")) {
    // both were refused, for what was there: it is there still
    expect(before, told).not.toBe("nothing");
    expect(linesOf(destination), told).toEqual(staged);
  }
  const asked: readonly string[] = runs.flatMap((run) => run.flags);
  const keeps = !asked.includes("--overwrite") && runs.every((run) => run.dtype === "keep");
  if (keeps && existsSync(`${destination}.partial`)) {
    expect(linesOf(destination), told).toEqual(expect.arrayContaining([...staged]));
  }
  if (outcomes.includes("killed")) await expectContinued(model, destination, to, told);
  else if (succeeded > 0) expect(left(destination), told).toEqual([]);
  rmSync(home, { recursive: true });
  return `${before}: ${outcomes.sort().join(", ")}`;
}

type Before = "nothing" | "staged" | "finished";

async function prepare(before: Before, model: string, destination: string, to: string): Promise<Before> {
  const options: ConvertOptions = { to, verify: "bytes", threads: 1, checkpointBytes: 100_000 };
  if (before === "finished") await convert(model, destination, options);
  if (before === "staged") {
    const stop = new AbortController();
    let tensors = 0;
    const watch: ConvertOptions["watch"] = ({ type }) => type === "tensor" && ++tensors === 5 && stop.abort();
    await expect(convert(model, destination, { ...options, watch, signal: stop.signal })).rejects.toThrow();
  }
  return before;
}

/** Names of finished tensors in the journal. */
function linesOf(destination: string): readonly string[] {
  const journal = join(`${destination}.partial`, "journal.ndjson");
  if (!existsSync(journal)) return [];
  const lines = readFileSync(journal, "utf8").split("\n").slice(1, -1);
  return lines.map((line) => JSON.parse(line).name).sort();
}

function outcomeOf({ status, signal, stdout, stderr }: Ended, told: string): string {
  if (signal === "SIGKILL") return "killed";
  const report = JSON.parse(stdout);
  if (status === 0) {
    expect(["same", "within"], told).toContain(report.verification.verdict);
    return "done";
  }
  expect(REFUSALS, `${told}: ${stderr}`).toContain(report.error?.code);
  return report.error.code;
}

function left(destination: string): readonly string[] {
  const names = readdirSync(join(destination, ".."));
  return names.filter((name) => name.includes(".partial"));
}

/** After a kill: whatever was staged, a resume or a new start gives one whole destination, and leaves nothing else. */
async function expectContinued(model: string, destination: string, to: string, told: string): Promise<void> {
  const options: ConvertOptions = { to, verify: "bytes", threads: 1, resume: true, overwrite: true };
  const report = await convert(model, destination, options).catch(async (error) => {
    expect(error.code, told).toBe("PLAN_CHANGED");
    return await convert(model, destination, { ...options, resume: false });
  });
  expect(report.verification?.verdict, told).toBe("same");
  const lock = `${destination}.partial.lock`;
  expect(left(destination), `${told} ${existsSync(lock) ? readlinkSync(lock) : ""}`).toEqual([]);
}
