/** Builds the parser of the command line (commander) from the tables of commands and flags. */
import { Command as Grammar, Option } from "commander";
import { IsologitError } from "../core/errors.ts";
import { type Arguments, type Command, DESTINATION, positionalSpec } from "./command.ts";
import { ENVIRONMENT, EXIT_STATUSES } from "./contract.ts";
import { type Flag, helpText, longName } from "./flag.ts";
import type { Output } from "./io.ts";
import { FLAGS, type FlagName, type Flags } from "./options.ts";
import { refuseValue } from "./values.ts";

export type Run = (command: Command, given: Arguments) => Promise<void>;

const AFTER_HELP = `
Exit status:
${Object.entries(EXIT_STATUSES)
  .map(([status, meaning]) => `  ${status.padEnd(2)} ${meaning.replaceAll("`", "")}`)
  .join("\n")}

Environment variables:
${Object.entries(ENVIRONMENT)
  .map(([name, meaning]) => `  ${name.padEnd(19)} ${meaning.replaceAll("`", "")}`)
  .join("\n")}`;

/** @param stdout receives help and version texts */
export function programOf(commands: readonly Command[], version: string, stdout: Output, run: Run): Grammar {
  const program = quiet(new Grammar("isologit"), stdout)
    .description("Converts model checkpoints and proves by logits that they are still the same model.")
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print help; `isologit <command> --help` for a command")
    .addHelpText("after", AFTER_HELP);
  for (const command of commands) program.addCommand(grammarOf(command, stdout, run));
  return program;
}

/** Errors are thrown, not printed: `reportFailure` prints all errors. */
const quiet = (grammar: Grammar, stdout: Output): Grammar =>
  grammar
    .exitOverride()
    .configureOutput({
      writeOut: (text) => stdout.write(text),
      writeErr: () => {},
      outputError: () => {},
      getOutHelpWidth: () => Math.min(stdout.columns ?? 100, 100),
    })
    .configureHelp({ optionDescription: ({ description }) => description });

function grammarOf(command: Command, stdout: Output, run: Run): Grammar {
  const examples = command.examples.map((example) => `  isologit ${example}`).join("\n");
  const grammar = quiet(new Grammar(command.name), stdout)
    .summary(command.summary)
    .description(command.summary)
    .helpOption("-h, --help", "print this help")
    .addHelpText("after", `\nExamples:\n${examples}`);
  for (const place of command.positionals) grammar.argument(positionalSpec(place), place.about);
  for (const name of command.flags) grammar.addOption(optionOf(name, command.helps));
  return grammar.action(async () => {
    const places = command.positionals.flatMap(({ name, several }, at) => {
      const given = grammar.args[at];
      return given === undefined || several ? [] : [[name, place(given, name)]];
    });
    const last = command.positionals.at(-1);
    const rest = last?.several ? grammar.args.slice(command.positionals.length - 1) : [];
    for (const given of rest) place(given, last!.name);
    // commander uses the keys of FLAGS, and each value was read by its flag's reader
    await run(command, { positionals: Object.fromEntries(places), rest, flags: grammar.opts() as Flags });
  });
}

function optionOf(name: FlagName, help: Command["helps"]): Option {
  const row: Flag & { readonly heading: string } = FLAGS[name];
  const { heading, repeatable } = row;
  const { read = row.read, spec = row.spec, ...shown } = help?.[name] ?? row;
  const option = new Option(spec, helpText(shown)).helpGroup(heading);
  if (shown.choices !== undefined) option.argChoices = [...shown.choices]; // for completion; the help text has them already
  if (read === undefined) return option;
  const long = longName(row);
  return repeatable
    ? option.argParser((given, before: readonly unknown[] = []) => [...before, ...[read(given, long)].flat()])
    : option.argParser((given) => read(given, long));
}

/** @throws USAGE for an empty text, and for a destination on the Hub: files are verified on disk before an upload */
function place(given: string, name: string): string {
  if (given === "") refuseValue(name, given, "a path");
  if (name === DESTINATION.name && /^hf:\/\//i.test(given)) {
    const next = "write to a local path, then upload it with `isologit upload`";
    throw new IsologitError(
      "USAGE",
      `${name} is ${JSON.stringify(given)}, expected a local path`,
      {},
      { next },
    );
  }
  return given;
}
