/** Runs that are killed when all is staged and nothing verified. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { expect } from "vitest";
import { start } from "../support/program.ts";
import { type Answer, convert, made } from "./attack.ts";
import { copied } from "./changes.ts";

export interface Killed {
  readonly source: string;
  readonly destination: string;
  readonly format: "hf" | "packed";
  /** the staged folder */
  readonly staged: string;
}

/** `convert`, killed as the verification begins. */
export async function killedAt(at: string, format: "hf" | "packed" = "hf"): Promise<Killed> {
  const source = await copied("tiny", join(at, "a"));
  const [destination, events] = [join(at, format === "hf" ? "c" : "c.isologit"), join(at, "events")];
  const { child, ended } = start([
    "convert",
    source,
    destination,
    "--to",
    format,
    "--quiet",
    "--events",
    events,
  ]);
  const begun = () => existsSync(events) && readFileSync(events, "utf8").includes('"phase":"verify"');
  while (!begun() && child.exitCode === null) await pause(1);
  child.kill("SIGKILL");
  expect((await ended).signal, "it was killed").toBe("SIGKILL");
  expect(existsSync(destination)).toBe(false);
  return { source, destination, format, staged: `${destination}.partial` };
}

/** The one staged file of this name. */
export function stagedFile({ staged }: Pick<Killed, "staged">, name: string): string {
  const entries = readdirSync(staged, { recursive: true, encoding: "utf8" });
  const found = entries.filter((path) => path === name || path.endsWith(`/${name}`));
  expect(found, `${name} in ${entries}`).toHaveLength(1);
  return join(staged, found[0]!);
}

/** The run again. Where it is green, its destination is to be, byte for byte, what an undisturbed run makes. */
export async function resumed({ source, destination, format }: Killed): Promise<Answer> {
  const answer = await convert(source, destination, "--to", format, "--resume");
  return await asUndisturbed(answer, source, destination, format);
}

/** A green answer that gave an undisturbed run's bytes mended what was done, which is as right as a refusal. */
export async function asUndisturbed(
  answer: Answer,
  source: string,
  destination: string,
  format: "hf" | "packed" = "hf",
): Promise<Answer> {
  if (answer.exit !== 0) return answer;
  const other = await made(
    "convert",
    source,
    `${destination}-undisturbed${format === "hf" ? "" : ".isologit"}`,
    "--to",
    format,
  );
  const mended = bytesBelow(destination).every(([path, bytes], i) => {
    const [same, others] = bytesBelow(other)[i] ?? [];
    return path === same && others !== undefined && bytes.equals(others);
  });
  return mended && bytesBelow(destination).length === bytesBelow(other).length
    ? { ...answer, mended }
    : answer;
}

/** Every file of a folder by its path, or the file itself; the certificate too. */
function bytesBelow(path: string): readonly (readonly [string, Buffer])[] {
  if (path.endsWith(".isologit")) return [["", readFileSync(path)]];
  const entries = readdirSync(path, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  const paths = entries.map((entry) => join(entry.parentPath, entry.name)).sort();
  return paths.map((one) => [one.slice(path.length), readFileSync(one)]);
}
