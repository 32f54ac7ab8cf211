/** The built program as a child process, as users and CI run it. */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { expectSchema } from "./json-schemas.ts";

const PROGRAM = new URL("../../dist/bin/isologit.js", import.meta.url).pathname;

export interface Ended {
  /** null where a signal ended it */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program that does not end by itself is the fault that this finds. */
const MAX_MS = 40_000;

/** Starts it with stdin closed: it never asks. */
export function start(
  args: readonly string[],
  options: SpawnOptions = {},
): { child: ChildProcess; ended: Promise<Ended> } {
  return watched(
    spawn(process.execPath, [PROGRAM, ...args], { stdio: ["ignore", "pipe", "pipe"], ...options }),
  );
}

/** A shell line in which `isologit` is the program. */
export function shell(line: string, options: SpawnOptions = {}, maxMs?: number): Promise<Ended> {
  const script = `isologit() { "${process.execPath}" "${PROGRAM}" "$@"; }; ${line}`;
  const child = spawn("bash", ["-c", script], { stdio: ["ignore", "pipe", "pipe"], ...options });
  return watched(child, maxMs).ended;
}

/** A module's text, run by Node. */
export function script(text: string, options: SpawnOptions = {}): Promise<Ended> {
  const args = ["--input-type=module", "-e", text];
  return watched(spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"], ...options })).ended;
}

export function isologit(...args: readonly string[]): Promise<Ended> {
  return start(args).ended;
}

// biome-ignore lint/suspicious/noExplicitAny: each command prints its own object; tests say what they expect of it
export type Report = Record<string, any>;

/** What `--json` prints, which must be one object and nothing else, and follows the schema of the command. */
export async function json(...args: readonly string[]): Promise<Ended & { report: Report }> {
  const ended = await isologit(...args, "--json");
  const report = JSON.parse(ended.stdout);
  expectSchema(args, report);
  return { ...ended, report };
}

function watched(child: ChildProcess, maxMs = MAX_MS): { child: ChildProcess; ended: Promise<Ended> } {
  const timer = setTimeout(() => child.kill("SIGABRT"), maxMs);
  const text = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (part: string) => {
      text[name] += part;
    });
  }
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status, signal) => {
      clearTimeout(timer);
      resolve({ status, signal, ...text });
    });
  });
  return { child, ended };
}
