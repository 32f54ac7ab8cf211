/** Parses the arguments, runs one command and prints its outcome. Results go to stdout, all other text to stderr. */
import { CommanderError } from "commander";
import { IsologitError } from "../core/errors.ts";
import { escapeControls } from "../core/figures.ts";
import { jsonText } from "../report/json.ts";
import type { ReportFiles } from "../report/kinds.ts";
import type { RunTimes, Stopped, Subject } from "../report/subject.ts";
import { version } from "../version.ts";
import type { Arguments, Command, Outcome } from "./command.ts";
import { COMMAND_NAMES, loadCommands } from "./commands/index.ts";
import { asIsologitError, reportFailure } from "./failure.ts";
import { longName } from "./flag.ts";
import type { Io } from "./io.ts";
import type { Library } from "./library.ts";
import { FLAGS, type Flags } from "./options.ts";
import { programOf } from "./program.ts";
import { type Paint, paintFor, viewOf } from "./render.ts";
import { environmentFlags, libraryOptions } from "./request.ts";
import { openSession, type Session } from "./session.ts";
import { fileFlags, fileLine } from "./settings/config-file.ts";
import { reportFiles } from "./values.ts";

/**
 * @param argv arguments after `isologit`
 * @returns    the exit status; never throws
 */
export async function main(argv: readonly string[], library: Library, io: Io): Promise<number> {
  let status = 0;
  const commands = await loadCommands(argv[0]);
  const program = programOf(commands, version, io.stdout, async (command, given) => {
    status = await runCommand(command, given, library, io);
  });
  try {
    if (argv[0] === COMPLETE) {
      const { default: addCompletion } = await import("@bomb.sh/tab/commander");
      addCompletion(program);
    }
    if (argv.length === 0) program.outputHelp();
    else await program.parseAsync(usualFlags(argv), { from: "user" });
    return status;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0; // help, version
    // If parsing failed, there are no parsed flags.
    const json = argv.includes("--json");
    const verbose = argv.includes("--verbose");
    return reportFailure(await usageOf(error, argv), io, { json, verbose });
  }
}

/** The hidden command that the scripts of `completion` run at each request. */
const COMPLETE = "complete";

/** Flags as other software spells them. */
const FLAG_ALIASES: Readonly<Record<string, string>> = {
  ...{
    "--tensor-parallel": "--tp",
    "--tensor-parallel-size": "--tp",
    "--tensor-model-parallel-size": "--tp",
  },
  ...{ "--pipeline-parallel": "--pp", "--pipeline-parallel-size": "--pp" },
  ...{ "--pipeline-model-parallel-size": "--pp", "--outfile": "--out", "--output": "--out" },
  "--scales": "--quant-scales",
};

/** The arguments with the usual spelling of each flag; MXFP8 is a dtype with scales of its own. */
function usualFlags(argv: readonly string[]): string[] {
  return argv.flatMap((argument, i) => {
    const [, flag = argument, rest = ""] = /^(--[a-z-]+)(=.*)?$/s.exec(argument) ?? [];
    if (argument === "--dtype=mxfp8") return MXFP8;
    if (argument === "mxfp8" && argv[i - 1] === "--dtype") return MXFP8.slice(1);
    return Object.hasOwn(FLAG_ALIASES, flag) ? FLAG_ALIASES[flag] + rest : argument;
  });
}

const MXFP8 = ["--dtype", "fp8-e4m3", "--quant-scales", "mxfp8"];

async function runCommand(command: Command, parsed: Arguments, library: Library, io: Io) {
  const inFile = await fileFlags(command, COMMAND_NAMES, parsed.flags.config);
  const given = { ...parsed, flags: { ...inFile, ...environmentFlags(command, io.env), ...parsed.flags } };
  if (Object.keys(inFile).length > 0 && !parsed.flags.quiet)
    io.stderr.write(`${fileLine(parsed.flags, inFile)}\n`);
  const { positionals: places, flags } = given;
  const files = reportFiles(flags.report ?? []);
  const reports = await reportsTo(files, io.env.GITHUB_STEP_SUMMARY);
  const session = await openSession(io, library, flags);
  let outcome: Outcome;
  try {
    outcome = await perform(command, given, session);
  } catch (error) {
    if (!flags.quiet) printWarnings(session, io);
    const failure = asIsologitError(interruptionOf(error, session, command));
    // the error of the command matters more than a report that cannot be written
    await reports.write(stopped(command, places, failure), session.times()).catch(() => {});
    throw failure;
  }
  if (outcome.subject !== undefined) await reports.write(outcome.subject, session.times());
  return printOutcome(outcome, session, flags, io);
}

/** The reports that the run writes at its end. Most runs write none, and then the writers are not loaded. */
async function reportsTo(files: ReportFiles, summary: string | undefined) {
  if (Object.keys(files).length === 0) return { write: async () => {} };
  const { refuseUnwritable, writeReports } = await import("../report/write.ts");
  await refuseUnwritable(files);
  return {
    write: (subject: Subject, times: RunTimes) => writeReports(subject, times, files, summary),
  };
}

function stopped({ name }: Command, places: Arguments["positionals"], failure: IsologitError): Stopped {
  const { code, message, at, next } = failure;
  const report = { error: { code, message, at, next } };
  return { command: "stopped", ran: name, addresses: Object.values(places), report };
}

/** Runs the command, then removes the progress bar and the signal handlers and closes the events file. */
async function perform(command: Command, given: Arguments, session: Session & Disposable) {
  using _ = session;
  const options = await libraryOptions(given.flags, session);
  if ("prompts" in options && command.severalPrompts !== true)
    throw new IsologitError("USAGE", `--ids-file has several prompts, and ${command.name} takes one`);
  return await command.run({ ...given, options }, session);
}

/** Prints each warning once: below a text result, or on stderr beside JSON. */
function printOutcome(outcome: Outcome, session: Session, flags: Flags, io: Io): number {
  if (flags.json) {
    if (!flags.quiet) printWarnings(session, io);
    io.stdout.write(jsonText(outcome.report));
  } else {
    const view = viewOf(io, flags, session.phases());
    const told = flags.quiet ? [] : [...session.warnings];
    const plugins = flags.quiet ? [] : (outcome.report.plugins ?? []);
    const remarks = [
      ...plugins.map((plugin) => `${view.paint("yellow", "plug-in")}  ${plugin}`), // code from outside took part
      ...told.map((warning) => warningLine(warning, view.paint)),
    ];
    const gap = remarks.length === 0 ? [] : [""];
    io.stdout.write([...outcome.text(view), ...gap, ...remarks, ""].join("\n"));
  }
  if (outcome.complaint !== undefined) {
    io.stderr.write(
      `${escapeControls(outcome.complaint.message)}\nnext: ${escapeControls(outcome.complaint.next)}\n`,
    );
  }
  return outcome.exit;
}

const warningLine = (warning: string, paint: Paint): string =>
  `${paint("yellow", "warning")}  ${escapeControls(warning)}`;

function printWarnings(session: Session, io: Io): void {
  const paint = paintFor(io.stderr, io.env);
  for (const warning of session.warnings) io.stderr.write(`${warningLine(warning, paint)}\n`);
}

/** After a stop signal, internal errors are consequences of the abort; the next step depends on the command. */
function interruptionOf(error: unknown, session: Session, command: Command): unknown {
  const failure = asIsologitError(error);
  const stopped = failure.code === "INTERRUPTED" || (session.signal.aborted && failure.code === "INTERNAL");
  if (!stopped) return error;
  const { message } = failure.code === "INTERRUPTED" ? failure : asIsologitError(session.signal.reason);
  const again = "run the same command again";
  const next = command.flags.includes("resume")
    ? `${again} with --resume; it continues where it stopped`
    : again;
  return new IsologitError("INTERRUPTED", message, failure.at, { cause: error, next });
}

/** An error of commander as USAGE; for a flag of another command the message names that command. */
async function usageOf(error: unknown, argv: readonly string[]): Promise<unknown> {
  if (!(error instanceof CommanderError)) return error;
  const commands = await loadCommands();
  const command = commands.find(({ name }) => name === argv[0]);
  const next = `run \`isologit ${command === undefined ? "" : `${command.name} `}--help\``;
  const flag = /^error: unknown option '(--[a-z0-9-]+)/.exec(error.message)?.[1];
  const owners = commands.filter(({ flags }) => flags.some((name) => longName(FLAGS[name]) === flag));
  const message =
    owners.length > 0
      ? misplaced(flag!, command, owners)
      : error.message.replace(/^error: /, "").replaceAll("\n", " ");
  return new IsologitError("USAGE", message, {}, { cause: error, next });
}

function misplaced(flag: string, command: Command | undefined, owners: readonly Command[]): string {
  const names = owners.map(({ name }) => name).join(", ");
  return command === undefined
    ? `${flag} is before the command, expected after it`
    : `${flag} is not a flag of ${command.name}; it is a flag of ${names}`;
}
