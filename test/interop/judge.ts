/**
 * The real libraries, asked a question at a time: one Python process in the userland that `../shared/oracle` builds.
 * Where that is not to be had, `absent` says why, and the suites skip under that reason.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { afterAll } from "vitest";

const oracle = new URL("../../../shared/oracle", import.meta.url).pathname;
const run = `${oracle}/run`;
const script = new URL("judge.py", import.meta.url).pathname;

/** Why there is no judge; null where there is one. */
export const absent: string | null = !existsSync(run)
  ? "skipped: there is no ../shared/oracle"
  : spawnSync(run, ["true"]).status !== 0
    ? "skipped: the userland of ../shared/oracle is not built"
    : null;

/** A suite's name: what it checks, and why it does not where it cannot. */
export const titled = (name: string, why: string | null = absent): string =>
  why === null ? name : `${name} (${why})`;

/** How far the logits of one side are from the other's. */
export interface Distances {
  readonly max_abs: number;
  readonly rel_l2: number;
}

interface Judge {
  /** @throws what the library said in refusing, as an Error */
  ask<T>(question: string, about?: Readonly<Record<string, unknown>>): Promise<T>;
}

/** A judge for this test file; it leaves when the file is done. */
export function judge(): Judge {
  if (absent !== null) return { ask: () => Promise.reject(new Error(absent)) };
  const process = spawn(run, ["python3", script, oracle], { stdio: ["pipe", "pipe", "ignore"] });
  const answers = createInterface(process.stdout)[Symbol.asyncIterator]();
  afterAll(() => void process.stdin.end());
  return {
    async ask<T>(question: string, about = {}) {
      process.stdin.write(`${JSON.stringify({ ask: question, ...about })}\n`);
      const { value, done } = await answers.next();
      if (done) throw new Error("the judge left");
      const answer = JSON.parse(value);
      if ("wrong" in answer) throw new Error(answer.wrong);
      return answer.is as T; // the shape is judge.py's, and the assertions that follow look at it
    },
  };
}

/** Runs a script in a folder of the userland, with further variables. @throws what it said, where it fails */
export function python(script: string, cwd: string, env: Readonly<Record<string, string>>): void {
  const options = { cwd, env: { ...process.env, ...env, HF_HUB_OFFLINE: "1" }, encoding: "utf8" } as const;
  const { status, stderr } = spawnSync(run, ["python3", "-c", script], options);
  if (status !== 0) throw new Error(`${stderr}`);
}

const measured: string[] = [];
afterAll(() => console.log(measured.join("\n")));

/** A line of the table that a file prints when it is done. */
export function record(what: string, value: string): void {
  measured.push(`${what.padEnd(44)} ${value}`);
}
