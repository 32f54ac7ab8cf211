/**
 * The built program is killed at random instants, again and again: no partial destination, and the same bytes in the end.
 * ISOLOGIT_KILLS is the number of kills (default 60), ISOLOGIT_KILL_SEED the seed of their instants (default 1).
 */
import { cpSync, existsSync, rmSync } from "node:fs";
import { join } from "node:path";
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
  const score = { kills: 0, early: 0, partial: 0, differing: 0, resumed: 0 };
  const names = Object.keys(RUNS);
  const facts = new Map<string, { ms: number; right: ReadonlyMap<string, string> }>();
  for (const name of names) {
    prepare(name);
    const started = performance.now();
    const { status, stderr } = await isologit(...inWork(RUNS[name]!));
    expect(status, stderr).toBe(0);
    facts.set(name, { ms: performance.now() - started, right: bytesAt(join(work, name)) });
  }
  for (let turn = 0; score.kills < KILLS; turn++) {
    // a run that proves takes longer, so most turns have none
    const name = names[turn % 8 === 7 ? 3 + random(2) : turn % 3]!;
    const { ms, right } = facts.get(name)!;
    prepare(name);
    const before = bytesAt(join(work, name));
    const path = join(work, name);
    // up to four kills in a row, then a run that is left alone
    for (let tries = 1 + random(4); tries > 0 && score.kills < KILLS; tries--) {
      const isBegun = existsSync(`${path}.partial`);
      const { child, ended } = start(inWork(isBegun ? [...RUNS[name]!, "--resume"] : RUNS[name]!), {
        cwd: work,
      });
      // a run writes in the second half of its time
      const instant = random(3) === 0 ? random(Math.ceil(ms)) : Math.ceil(ms / 2) + random(Math.ceil(ms / 2));
      const timer = setTimeout(() => child.kill("SIGKILL"), instant);
      const { signal } = await ended;
      clearTimeout(timer);
      if (signal !== "SIGKILL") {
        score.early++; // it was done before
        break;
      }
      score.kills++;
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
  }
  console.log(JSON.stringify(score));
  expect([score.partial, score.differing]).toEqual([0, 0]);
});

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
