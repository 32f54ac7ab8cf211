/** The built program, run as a user runs it. */
import { spawnSync } from "node:child_process";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { golden } from "../support/goldens.ts";

const program = new URL("../../dist/bin/isologit.js", import.meta.url).pathname;

/** @throws its own words, where it ends with another status than 0 */
export function isologit(...args: readonly string[]): void {
  const { status, stderr } = spawnSync(process.execPath, [program, ...args, "--quiet"], { encoding: "utf8" });
  if (status !== 0) throw new Error(`isologit ${args.join(" ")}: ${status}\n${stderr}`);
}

export interface Answer {
  readonly reference?: {
    readonly verdict: string;
    readonly metrics: Readonly<Record<"relL2" | "klMean" | "tokens", number>>;
  };
  readonly firstDivergence?: { readonly layer: number } | null;
  readonly error?: { readonly code: string };
}

/** What the program says of a recording: the reference rung, or why it is refused. */
export function verdictOf(folder: string, recording: string): Answer {
  const args = ["verify", folder, "--reference", recording, "--backend", "wasm", "--quiet", "--json"];
  const { stdout } = spawnSync(process.execPath, [program, ...args], { encoding: "utf8" });
  const { rungs, firstDivergence, error } = JSON.parse(stdout);
  return {
    reference: rungs?.find(({ rung }: { rung: string }) => rung === "reference"),
    firstDivergence,
    error,
  };
}

/** A golden without its reference logits: a folder as it is published. */
export function published(name: string, work: string): string {
  const folder = join(work, name);
  cpSync(golden(name), folder, {
    recursive: true,
    filter: (path) => !path.endsWith("reference.safetensors"),
  });
  return folder;
}
