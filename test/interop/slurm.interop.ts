/**
 * A real Slurm (slurmctld and slurmd, Debian's slurm-wlm): a conversion whose tasks are killed and started again ends with the
 * bytes of one process. Where no Slurm answers, every test is skipped, and its name says so.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { beforeAll, describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { smallModel } from "../../src/conformance/small-model.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { contentAt } from "../support/tasks.ts";

const PROGRAM = new URL("../../dist/bin/isologit.js", import.meta.url).pathname;
const hasSlurm = spawnSync("sinfo", ["--noheader"]).status === 0;
const needed = hasSlurm ? "" : " (skipped: no Slurm answers `sinfo`)";

const work = workFolder();
let counter = 0;

/** Weights of some 250 MB, so that a task lasts long enough to be killed. */
const large = join(work, "large");
beforeAll(async () => {
  if (!hasSlurm) return;
  const widths = { hidden_size: 1024, intermediate_size: 8192, mamba_num_heads: 32, mamba_head_dim: 64 };
  await smallModel(large, "M-*-M-", { ...widths, vocab_size: 32000 }, 2e8);
});

interface Dispatched {
  readonly child: ChildProcess;
  readonly destination: string;
  readonly ended: Promise<{
    readonly status: number | null;
    readonly stdout: string;
    readonly stderr: string;
  }>;
}

function dispatch(source: string, name: string, ...flags: readonly string[]): Dispatched {
  const folder = join(work, String(counter++));
  mkdirSync(folder, { recursive: true });
  const destination = join(folder, name);
  return { destination, ...dispatchTo(source, destination, ...flags) };
}

function dispatchTo(source: string, destination: string, ...flags: readonly string[]) {
  const words = ["dispatch", "slurm", source, destination, "--sbatch", "cpus-per-task=1", "--json", ...flags];
  const child = spawn(process.execPath, [PROGRAM, ...words], { stdio: ["ignore", "pipe", "pipe"] });
  const text = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream]!.on("data", (part) => {
      text[stream] += part;
    });
  }
  const ended = new Promise<Awaited<Dispatched["ended"]>>((resolve) => {
    child.on("close", (status) => resolve({ status, ...text }));
  });
  return { child, ended };
}

const slurm = (name: string, ...words: readonly string[]): string =>
  execFileSync(name, words, { encoding: "utf8" });

/** Ids of jobs in this state. */
const jobsIn = (state: string): readonly string[] =>
  slurm("squeue", "--noheader", "--array", `--states=${state}`, "--format=%i").split("\n").filter(Boolean);

async function until<T>(find: () => T | undefined): Promise<T> {
  for (let tries = 0; tries < 1200; tries++) {
    const found = find();
    if (found !== undefined) return found;
    await sleep(50);
  }
  throw new Error("it did not happen within a minute");
}

const runningTask = () => until(() => jobsIn("RUNNING").find((id) => id.includes("_")));

/** The process of a task that writes tensors, by the words that started it. */
const writerIn = (destination: string): number | undefined => {
  const found = spawnSync("pgrep", ["-f", `${PROGRAM} convert --plan`], { encoding: "utf8" }).stdout;
  return found
    .split("\n")
    .filter(Boolean)
    .map(Number)
    .find((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cwd/plan.json`, "utf8").includes(destination);
      } catch {
        return false;
      }
    });
};

async function expectOneProcess(source: string, destination: string, options: Parameters<typeof convert>[2]) {
  const alone = `${destination}-alone`;
  await convert(source, alone, { ...options, verify: "bytes" });
  const [made, wanted] = [contentAt(destination), contentAt(alone)];
  for (const content of [made, wanted]) {
    // the certificate names the rungs that ran, which are not the same here
    if (content.size > 1) (content as Map<string, string>).delete("isologit.certificate.json");
  }
  expect([...made.keys()].sort()).toEqual([...wanted.keys()].sort());
  for (const [path, bytes] of wanted) expect(made.get(path) === bytes, path).toBe(true);
}

describe.skipIf(!hasSlurm)(`under Slurm${needed}`, () => {
  it("converts, verifies and publishes", async () => {
    const { destination, ended } = dispatch(
      golden("tiny"),
      "out.isologit",
      "--tasks",
      "3",
      "--verify",
      "bytes",
    );
    const { status, stdout, stderr } = await ended;
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ engine: "slurm", tasks: 3, result: { exact: true } });
    await expectOneProcess(golden("tiny"), destination, { to: "packed" });
  });

  it("continues tasks that are killed and requeued in mid-run", async () => {
    const flags = ["--to", "hf", "--dtype", "fp8-e4m3", "--recipe", "all-linear", "--verify", "bytes"];
    const { destination, ended } = dispatch(large, "fp8", "--tasks", "4", ...flags);
    const id = await runningTask();
    process.kill(await until(() => writerIn(destination)), "SIGKILL");
    await until(
      () =>
        jobsIn("PENDING").find((other) => other === id) ??
        jobsIn("PENDING").find((other) => other.includes("_")),
    );
    const next = await runningTask();
    slurm("scontrol", "requeue", next);
    const { status, stderr } = await ended;
    expect(status, stderr).toBe(0);
    await expectOneProcess(large, destination, { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear" });
  });

  it("cancels its jobs on Ctrl-C, and continues when it is dispatched again", async () => {
    const flags = ["--tasks", "4", "--verify", "bytes"];
    const { child, destination, ended } = dispatch(large, "large.isologit", ...flags);
    await runningTask();
    child.kill("SIGINT");
    const { status, stderr } = await ended;
    expect([status, stderr]).toEqual([5, expect.stringContaining("SIGINT")]);
    await until(() => (slurm("squeue", "--noheader").trim() === "" ? true : undefined));
    const again = await dispatchTo(large, destination, ...flags).ended;
    expect(again.status, again.stderr).toBe(0);
    await expectOneProcess(large, destination, { to: "packed" });
  });

  it("ends with the status of the task that found damage", async () => {
    const source = join(work, `damaged.isologit`);
    await convert(golden("tiny"), source, { verify: "off" });
    const bytes = readFileSync(source);
    bytes.fill(9, bytes.byteLength - 30_000, bytes.byteLength - 29_000);
    writeFileSync(source, bytes);
    const { status, stdout } = await dispatch(source, "out", "--to", "hf", "--tasks", "2").ended;
    expect([status, JSON.parse(stdout).error.code]).toEqual([3, "DIGEST_MISMATCH"]);
  });
});
