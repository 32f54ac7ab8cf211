/**
 * Attacks on the verdict: `same` and `within` promise that it is the same model. Each attack changes a copy of a golden, asks
 * the command line with its default flags, and says which answer is right.
 */
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { library } from "../../bin/on-demand.ts";
import type { Library } from "../../src/cli/library.ts";
import type { Event } from "../../src/core/events.ts";
import { run } from "../support/fake-library.ts";
import { workFolder } from "../support/goldens.ts";
import { OPEN } from "./open.ts";

/**
 * `red`: different, unproven, or a refusal of what is there. `green`: same or within. `told`: green with a finding that names
 * what differs, or red.
 */
export type Right = "red" | "green" | "told";

export interface Attack {
  readonly name: string;
  /** what is done */
  readonly what: string;
  readonly right: Right;
  /** of `told`: what a finding names where the answer is green; absent where a bare green is right too */
  readonly tells?: RegExp;
  /** @param at an empty folder of its own */
  run(at: string): Promise<Answer>;
}

/** What the command line said. */
export interface Answer {
  readonly exit: number;
  readonly verdict: string | null;
  /** of an error */
  readonly code: string | null;
  readonly message: string | null;
  readonly findings: readonly string[];
  /** of a run that was disturbed: its destination is as if nobody had, which is as right as red */
  readonly mended?: boolean;
}

/** A test a row. */
export function attacks(kind: string, rows: readonly Attack[]): void {
  describe(kind, () => {
    const work = workFolder();
    it.each(rows.map((row) => [row.name, row.what, row] as const))("%s: %s", async (name, _, row) => {
      const answer = await row.run(mkdtempSync(join(work, `${name}-`)));
      const said = `${name}: the right answer is ${row.right}, the answer is ${JSON.stringify(answer, null, 1)}`;
      if (OPEN.includes(name))
        expect(isRight(row, answer), `${name} is mended: take it off the list`).toBe(false);
      else expect(isRight(row, answer), said).toBe(true);
    });
  });
}

function isRight({ right, tells }: Attack, answer: Answer): boolean {
  const green = answer.exit === 0 && /^(same|within)$/.test(answer.verdict ?? "");
  if (right === "green") return green;
  if (isRed(answer) || (right === "red" && green && answer.mended === true)) return true;
  return right === "told" && green && (tells === undefined || answer.findings.some((one) => tells.test(one)));
}

/** A refusal of what is there, not of how the program was called. */
export function isRed({ exit, verdict, code }: Answer): boolean {
  if (exit === 1) return verdict === "different" || verdict === "unproven";
  if (code === null || code === "USAGE") return false;
  return exit === 2 || exit === 3 || (exit === 4 && code.includes("CHANGED"));
}

/** The command line in this process, over the whole library or a changed one. */
export async function ask(argv: readonly string[], over: Partial<Library> = {}): Promise<Answer> {
  const flags = argv[0] === "plan" ? [] : ["--threads", "1"];
  const { status, stdout } = await run([...argv, "--json", ...flags], { over: { ...library, ...over } });
  const report = JSON.parse(stdout);
  const { verdict = null, findings = [] } = report.verification ?? report;
  const { code = null, message = null } = report.error ?? {};
  return { exit: status, verdict, code, message, findings };
}

export const verify = (...argv: readonly string[]) => ask(["verify", ...argv]);
export const convert = (...argv: readonly string[]) => ask(["convert", ...argv]);

/** What a side file changes may be a finding by default, where --strict makes it `different`. */
export async function verifyStrictly(...argv: readonly string[]): Promise<Answer> {
  const answer = await verify(...argv);
  return answer.findings.length === 0 || isRed(answer) ? answer : await verify(...argv, "--strict");
}

/** A preparation that must succeed. @returns the destination */
export async function made(
  command: "convert" | "recast",
  source: string,
  to: string,
  ...flags: readonly string[]
) {
  const answer = await ask([command, source, to, ...flags]);
  expect(answer, `${command} ${source} ${flags.join(" ")}`).toMatchObject({ exit: 0 });
  return to;
}

/** As `run`, and `act` when an event is `at`: whatever it does is done before the program goes on. */
export async function askWhile(
  argv: readonly string[],
  at: (event: Event) => boolean,
  act: () => void,
): Promise<Answer> {
  let met = false;
  const watched =
    // biome-ignore lint/suspicious/noExplicitAny: either command's function, with the options that it takes last
      (ran: (...args: any[]) => Promise<any>) =>
      // biome-ignore lint/suspicious/noExplicitAny: as above
      async (...args: any[]) => {
        const { watch, ...options } = args.at(-1);
        const both = (event: Event) => {
          watch(event);
          if (met || !at(event)) return;
          met = true;
          act();
        };
        return await ran(...args.slice(0, -1), { ...options, watch: both });
      };
  const answer = await ask(argv, { verify: watched(library.verify), convert: watched(library.convert) });
  expect(met, "the event was met").toBe(true);
  return answer;
}
