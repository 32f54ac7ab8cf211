/**
 * The built program is killed at random instants, again and again: no partial destination, and the same bytes in the end.
 * ISOLOGIT_KILLS is the number of kills (default 60), ISOLOGIT_KILL_SEED the seed of their instants (default 1).
 */
import type { ChildProcess } from "node:child_process";
import { cpSync, existsSync, lstatSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { bytesAt } from "../support/fault-loop.ts";
import { workFolder } from "../support/goldens.ts";
import { isologit, start } from "../support/program.ts";
import { randomFrom } from "../support/random.ts";
import { smallModel } from "../support/small.ts";

const KILLS = Number(process.env.ISOLOGIT_KILLS ?? 60);
const SEED = Number(process.env.ISOLOGIT_KILL_SEED ?? 1);

const work = workFolder();
// large enough that a run writes for a good part of its time
const model = await smallModel(join(work, "model"), "-M-", { hidden_size: 256, vocab_size: 4000 });
const SLOW = ["--threads", "1", "--memory", "1MiB"];

/** Commands by the name of what they write; `replaced` begins with another folder in its place. */
const RUNS: Readonly<Record<string, readonly string[]>> = {
  "x.isologit": ["convert", model, "x.isologit", "--verify", "off", ...SLOW],
  nemo2: ["convert", model, "nemo2", "--to", "nemo2", "--verify", "off", ...SLOW],
  replaced: [
    "recast",
    model,
    "replaced",
    "--dtype",
    "fp8-e4m3",
    "--keep-ends",
    "0",
    "--overwrite",
    "--verify",
    "off",
    ...SLOW,
  ],
  "proved.isologit": ["convert", model, "proved.isologit", "--verify", "bytes", ...SLOW],
  cut: ["prune", model, "cut", "--to", "hf", "--drop", "0", "--ids", "1,2,3", "--threads", "1"],
};

it(`${KILLS} kills with seed ${SEED}`, { timeout: 3_600_000 }, async () => {
  const random = randomFrom(SEED);
  const score = { kills: 0, whileLocked: 0, done: 0, partial: 0, differing: 0, resumed: 0 };
  const names = Object.keys(RUNS);
  const facts = new Map<string, { startMs: number; lockedMs: number; right: ReadonlyMap<string, string> }>();
  for (const name of names) {
    prepare(name);
    const started = performance.now();
    const { child, ended } = start(inWork(RUNS[name]!), { cwd: work });
    await lockTaken(join(work, name), child);
    const locked = performance.now();
    const { status, stderr } = await ended;
    expect(status, stderr).toBe(0);
    const [startMs, lockedMs] = [locked - started, performance.now() - locked];
    facts.set(name, { startMs, lockedMs, right: bytesAt(join(work, name)) });
  }
  for (let turn = 0; score.kills < KILLS; turn++) {
    // a run that proves takes longer, so most turns have none
    const name = names[turn % 8 === 7 ? 3 + random(2) : turn % 3]!;
    const fact = facts.get(name)!;
    const { right } = fact;
    prepare(name);
    const before = bytesAt(join(work, name));
    const path = join(work, name);
    // up to four kills in a row, then a run that is left alone
    for (let tries = 1 + random(4); tries > 0 && score.kills < KILLS; tries--) {
      const isBegun = existsSync(`${path}.partial`);
      const { child, ended } = start(inWork(isBegun ? [...RUNS[name]!, "--resume"] : RUNS[name]!), {
        cwd: work,
      });
      const isStarting = random(8) === 0; // most kills come after the lock is taken
      if (!isStarting) await lockTaken(path, child);
      const locked = performance.now();
      const timer = setTimeout(
        () => child.kill("SIGKILL"),
        random(Math.ceil(isStarting ? fact.startMs : fact.lockedMs)),
      );
      const { signal } = await ended;
      clearTimeout(timer);
      if (signal !== "SIGKILL") {
        score.done++; // before the kill: the machine is faster now
        if (!isStarting) fact.lockedMs = Math.min(fact.lockedMs, performance.now() - locked);
        break;
      }
      score.kills++;
      if (holds(path, child)) score.whileLocked++;
      const found = bytesAt(path);
      if (![before, right, new Map()].some((whole) => same(found, whole))) score.partial++;
    }
    const resume = existsSync(`${path}.partial`);
    if (resume || !same(bytesAt(path), right)) {
      const { status, stderr } = await isologit(...inWork(RUNS[name]!), ...(resume ? ["--resume"] : []));
      expect(status, stderr).toBe(0);
      if (resume) score.resumed++;
    }
    if (!same(bytesAt(path), right)) score.differing++;
    expect(existsSync(`${path}.partial`)).toBe(false);
    // a run that is stopped has shown what it found until then
    console.log(JSON.stringify(score));
  }
  expect([score.partial, score.differing]).toEqual([0, 0]);
});

/** Whether a process holds the lock of a destination: a link without a target, whose text names the process. */
function holds(path: string, { pid }: ChildProcess): boolean {
  const lock = `${path}.partial.lock`;
  const isThere = lstatSync(lock, { throwIfNoEntry: false }) !== undefined;
  return isThere && JSON.parse(readlinkSync(lock)).pid === pid;
}

/** Waits until a run has taken its lock, or has ended. */
async function lockTaken(path: string, child: ChildProcess): Promise<void> {
  while (child.exitCode === null && child.signalCode === null && !holds(path, child)) await sleep(1);
}

function inWork(args: readonly string[]): readonly string[] {
  return args.map((arg, i) => (i === 2 ? join(work, arg) : arg));
}

/** Removes what a turn left, and lays a folder in the place that is replaced. */
function prepare(name: string): void {
  const path = join(work, name);
  for (const each of [path, `${path}.partial`, `${path}.partial.lock`])
    rmSync(each, { recursive: true, force: true });
  if (name === "replaced") cpSync(model, path, { recursive: true });
}

function same(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a.size === b.size && [...a].every(([path, digest]) => b.get(path) === digest);
}
