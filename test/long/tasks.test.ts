/**
 * Every format that is written, kept and recast, by 1, 2 and 8 tasks that are stopped in mid-run, in another order, at the
 * same time: the bytes that one process writes.
 */
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { markOfThisProcess } from "../../src/io/processes/process-mark.ts";
import { ggufGolden, golden, workFolder } from "../support/goldens.ts";
import { start } from "../support/program.ts";
import { randomFrom } from "../support/random.ts";
import { smallModel } from "../support/small.ts";
import { contentAt, divide } from "../support/tasks.ts";

const work = workFolder();
let counter = 0;

const CASES: readonly [name: string, source: string, options: ConvertOptions][] = [
  ["packed", golden("tiny"), { to: "packed" }],
  [
    "packed, aligned, FP8",
    golden("tiny"),
    { to: "packed", alignment: 4096, dtype: "fp8-e4m3", recipe: "all-linear" },
  ],
  [
    "packed, FP8 by blocks",
    golden("tiny"),
    { to: "packed", dtype: "fp8-e4m3", recipe: "all-linear", quantScales: "row" },
  ],
  ["hf in shards", golden("tiny"), { to: "hf", maxShardBytes: 60_000 }],
  [
    "hf in FP8 with shared scales",
    golden("tiny"),
    { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", fuseScales: true },
  ],
  ["hf with experts in F32", golden("moe"), { to: "hf", dtype: "f32" }],
  ["nemo2", golden("tiny"), { to: "nemo2" }],
  ["nemo2 with padding", golden("tiny"), { to: "nemo2", tp: 8 }],
  ["megatron for ranks", golden("tiny"), { to: "megatron", tp: 2, pp: 2 }],
  ["bridge", golden("moe"), { to: "bridge" }],
  ["gguf", golden("tiny"), { to: "gguf", dtype: "f32" }],
  ["gguf in Q8_0", golden("tiny"), { to: "gguf", dtype: "q8_0" }],
  ["gguf in Q4_K_M", ggufGolden("k-bf16.gguf"), { to: "gguf", dtype: "q4_k_m" }],
];

/** Runs all tasks at the same time, the last first; every second one is stopped once after `stopAt` tensors. */
async function runTasks(
  run: Awaited<ReturnType<typeof divide>>,
  count: number,
  stopAt: number,
): Promise<number> {
  let kept = 0;
  const one = async (index: number) => {
    const stop = new AbortController();
    let seen = 0;
    const first = run.task(index, count, {
      checkpointBytes: 1,
      signal: stop.signal,
      watch: ({ type }) => {
        if (type === "tensor" && index % 2 === 0 && ++seen === stopAt) stop.abort();
      },
    });
    await first.catch((error) => expect(error.code).toBe("INTERRUPTED"));
    kept += (await run.task(index, count)).kept;
  };
  await Promise.all(Array.from({ length: count }, (_, i) => one(count - 1 - i)));
  return kept;
}

describe.each(CASES)("%s", (_, source, options) => {
  it.each([1, 2, 8])("%d tasks", async (count) => {
    const folder = join(work, String(counter++));
    mkdirSync(folder);
    const run = await divide(folder, source, "out", options);
    expect(await runTasks(run, count, 3)).toBeGreaterThan(0);
    const { verification } = await run.merged();
    expect(["same", "within"]).toContain(verification?.verdict);
    expect(contentAt(run.destination)).toEqual(await run.alone());
  });
});

it("a task goes on where its host has vanished: its lock is silent", async () => {
  const folder = join(work, String(counter++));
  mkdirSync(folder);
  const run = await divide(folder, golden("tiny"), "out", { to: "packed" });
  mkdirSync(run.staging);
  const mark = { ...(await markOfThisProcess()), host: "elsewhere", since: "2026-01-02T03:04:05.000Z" };
  const lock = join(run.staging, "task.0-of-2.lock");
  symlinkSync(JSON.stringify({ ...mark, token: "1".repeat(16), beatSeconds: 10 }), lock);
  await run.task(1, 2);
  const before = performance.now();
  await run.task(0, 2);
  expect(performance.now() - before).toBeGreaterThan(55_000);
  await run.merged();
  expect(contentAt(run.destination)).toEqual(await run.alone());
});

it("processes that are killed at any instant, and run again", async () => {
  const folder = join(work, String(counter++));
  const source = join(folder, "source");
  await smallModel(source, "M-*-", { hidden_size: 512, vocab_size: 16_000, intermediate_size: 4096 }, 2e7);
  const run = await divide(folder, source, "out", { to: "packed", dtype: "fp8-e4m3", recipe: "all-linear" });
  const random = randomFrom(20);
  let kills = 0;
  const one = async (index: number) => {
    for (let tries = 0; ; tries++) {
      const words = ["convert", "--plan", run.planFile, "--task", `${index}/3`, "--threads", "1", "--quiet"];
      const { child, ended } = start(words);
      const timer = setTimeout(() => child.kill("SIGKILL"), 150 * (tries + 1) + random(150)); // later each time
      const { status, signal, stderr } = await ended;
      clearTimeout(timer);
      if (status === 0) return;
      expect(signal, stderr).toBe("SIGKILL");
      kills++;
    }
  };
  await Promise.all([0, 1, 2].map(one));
  expect(kills).toBeGreaterThan(3);
  await run.merged();
  expect(contentAt(run.destination)).toEqual(await run.alone());
});
