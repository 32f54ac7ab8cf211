/**
 * The built program, killed step by step while it prunes, with an eye on its destination: nothing partial comes into view, and
 * --resume gives the same bytes. Random kills of it are in kills.test.ts.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { filesOf, workFolder } from "../support/goldens.ts";
import { isologit, start } from "../support/program.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "M-M-", { hidden_size: 128, vocab_size: 8_000 });
const dst = join(work, "cut");
const events = join(work, "events");
// one thread and small bands: slow enough to be caught at work
const ARGS = ["prune", model, dst, "--to", "hf", "--drop", "1", "--ids", "1,2,3", "--threads", "1"];
const args = [...ARGS, "--memory", "16MiB", "--events", events];

const first = await isologit(...args);
expect(first.status, first.stderr).toBe(0);
const right = filesOf(dst);
const lines = readFileSync(events, "utf8").trim().split("\n").length;
rmSync(dst, { recursive: true });

/** Starts the program and watches its destination, which is absent or whole. */
async function killed(isTime: () => boolean): Promise<void> {
  rmSync(events, { force: true });
  const { child, ended } = start(args);
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  while (!isOver && !isTime()) {
    if (existsSync(dst)) expect(filesOf(dst)).toEqual(right);
    await pause(1);
  }
  child.kill("SIGKILL");
  await ended;
  if (existsSync(dst)) expect(filesOf(dst)).toEqual(right);
}

/** Runs it again to its end. */
async function resumed(): Promise<void> {
  const { status, stderr } = await isologit(...args, "--resume");
  expect(status, stderr).toBe(0);
  expect(filesOf(dst)).toEqual(right);
  expect(existsSync(`${dst}.partial`)).toBe(false);
  rmSync(dst, { recursive: true });
}

/** True once the program has told of so many events. */
const told = (count: number) => () =>
  existsSync(events) && readFileSync(events, "utf8").split("\n").length > count;

describe("kill -9", { timeout: 120_000 }, () => {
  it.each(Array.from({ length: 6 }, (_, i) => Math.ceil((i * lines) / 6)))(
    "after event %i",
    async (count) => {
      await killed(told(count));
      await resumed();
    },
  );

  it("a choice in rounds is made again, and the staged files are continued", async () => {
    const other = join(work, "shorter");
    const rounds = ["--layers", "mamba=1,mlp=1", "--iterative", "--ids", "1,2,3", "--threads", "1"];
    const line = ["prune", model, other, "--to", "hf", ...rounds, "--events", events];
    expect((await isologit(...line)).status).toBe(0);
    const whole = filesOf(other);
    rmSync(other, { recursive: true });
    rmSync(events, { force: true });
    const { child, ended } = start(line);
    const isWriting = () => existsSync(events) && readFileSync(events, "utf8").includes('"tensor"');
    while (child.exitCode === null && !isWriting()) await pause(1);
    child.kill("SIGKILL");
    await ended;
    expect([existsSync(other), existsSync(`${other}.partial`)]).toEqual([false, true]);
    const { status, stderr } = await isologit(...line, "--resume");
    expect(status, stderr).toBe(0);
    expect(filesOf(other)).toEqual(whole);
  });
});
