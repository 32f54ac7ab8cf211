/** The built program, run as a user runs it. */
import { spawnSync } from "node:child_process";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { golden } from "../goldens.ts";

const program = new URL("../../dist/bin/isologit.js", import.meta.url).pathname;

/** @throws its own words, where it ends with another status than 0 */
export function isologit(...args: readonly string[]): void {
  const { status, stderr } = spawnSync(process.execPath, [program, ...args, "--quiet"], { encoding: "utf8" });
  if (status !== 0) throw new Error(`isologit ${args.join(" ")}: ${status}\n${stderr}`);
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
