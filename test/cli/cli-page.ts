/** docs/cli.md, written from the tables of commands, flags and errors. */
import { type Command, positionalSpec } from "../../src/cli/command.ts";
import { loadCommands } from "../../src/cli/commands/index.ts";
import { ENVIRONMENT, EXIT_STATUSES } from "../../src/cli/contract.ts";
import { type FlagHelp, joinChoices } from "../../src/cli/flag.ts";
import { nameFlags } from "../../src/cli/flag-names.ts";
import { FLAGS, type FlagName } from "../../src/cli/options.ts";
import { ERRORS } from "../../src/core/errors.ts";

const commands = await loadCommands();

export function cliPage(): string {
  return [
    INTRODUCTION,
    "## Commands",
    table(
      ["command", "purpose"],
      commands.map(({ name, summary }) => [`[\`${name}\`](#isologit-${name})`, summary]),
    ),
    ...commands.flatMap(commandSection),
    "## Exit statuses",
    table(
      ["status", "meaning"],
      Object.entries(EXIT_STATUSES).map(([status, meaning]) => [status, meaning]),
    ),
    "## Error codes",
    ABOUT_CODES,
    table(
      ["code", "status", "usual next step"],
      Object.entries(ERRORS).map(([code, { exit, next }]) => [`\`${code}\``, String(exit), nameFlags(next)]),
    ),
    "## Environment variables",
    table(
      ["variable", "meaning"],
      Object.entries(ENVIRONMENT).map(([name, meaning]) => [`\`${name}\``, meaning]),
    ),
  ]
    .join("\n\n")
    .concat("\n");
}

const INTRODUCTION = `# Command line

\`\`\`text
isologit <command> [options] [arguments]
\`\`\`

Results go to stdout. Progress, warnings and errors go to stderr. \`isologit --version\` prints the version, \`isologit --help\` lists the
commands, and \`isologit <command> --help\` shows the options of one command. The value of an option may follow after a space or after \`=\`.
A size has its unit: \`1GiB\` and the like are powers of 1024, \`5GB\` and the like are powers of 1000.

With \`--json\` a command prints one object. \`docs/json/COMMAND.schema.json\`, also in the npm package, is its JSON Schema (of \`cache\` and
\`auth\` one for each action, as [cache-ls](json/cache-ls.schema.json)), [error](json/error.schema.json) is that of an error,
and [event](json/event.schema.json) that of a line of \`--events\`.

Flags may also stand in a file: \`isologit.yaml\` in the current folder, or the file of \`--config\`. A key is the long name of a flag, for every
command that has it, or the name of a command with flags of its own; environment and command line win, and each run prints which flags came from
the file. Flags about trust (keys, bundles, identities, plug-ins) are read from a file that \`--config\` names only. [isologit.schema.json](isologit.schema.json)
is its JSON Schema.

\`\`\`yaml
# yaml-language-server: $schema=isologit.schema.json
memory: 4GiB
recast: { dtype: fp8-e4m3, recipe: nemotron-h }
check: { for: [vllm, sglang], strict: true }
\`\`\`

This page is written from the tables in \`src/cli/\`, and a test compares it with them.`;

const ABOUT_CODES = `An error has a code, a message, a location and a next step. With \`--json\` it is
\`{ "error": { "code", "message", "at", "next" } }\` on stdout. The next step of a particular error may be more precise than the one in this table.`;

function commandSection(command: Command): string[] {
  const { name, summary, positionals: places, flags, examples } = command;
  const synopsis = ["isologit", name, "[options]", ...places.map(positionalSpec)].join(" ");
  const headings = [...new Set(flags.map((flag) => FLAGS[flag].heading))];
  return [
    `## isologit ${name}`,
    sentence(summary),
    fenced([synopsis], "text"),
    ...(places.length === 0
      ? []
      : [
          table(
            ["argument", "meaning"],
            places.map((place) => [`\`${place.name}\``, place.about]),
          ),
        ]),
    ...headings.flatMap((heading) => [
      `**${heading.replace(/:$/, "")}**`,
      table(
        ["option", "meaning", "default"],
        flags.filter((flag) => FLAGS[flag].heading === heading).map((flag) => optionRow(flag, command)),
      ),
    ]),
    "Examples:",
    fenced(
      examples.map((example) => `isologit ${example}`),
      "sh",
    ),
  ];
}

function optionRow(name: FlagName, { helps }: Command): string[] {
  const { about, choices, default: usual = "" }: FlagHelp = helps?.[name] ?? FLAGS[name];
  const values = choices === undefined ? "" : `: ${joinChoices(choices.map((choice) => `\`${choice}\``))}`;
  return [`\`${FLAGS[name].spec}\``, `${about}${values}`, usual];
}

const sentence = (text: string): string => `${text[0]!.toUpperCase()}${text.slice(1)}.`;

const fenced = (lines: readonly string[], language: string): string =>
  ["```", language, "\n", lines.join("\n"), "\n```"].join("");

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}
