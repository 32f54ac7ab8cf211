/**
 * Flags from a file: `isologit.yaml` in the current folder, or the file that `--config` names. A key is the long name of a
 * flag, for every command that has it, or the name of a command with flags of its own. Environment and command line win.
 */
import { readFile } from "node:fs/promises";
import { IsologitError, systemError } from "../../core/errors.ts";
import { escapeControls } from "../../core/figures.ts";
import { isJsonObject } from "../../core/json.ts";
import type { Command } from "../command.ts";
import { type Flag, longName } from "../flag.ts";
import { FLAGS, type FlagName, type Flags, SIGNING, TRUST } from "../options.ts";

const DEFAULT_FILE = "isologit.yaml";

/** Flags that a file cannot set: secrets, decisions about one run, and what is needed before the file is read. */
export const ONLY_ON_COMMAND_LINE: readonly FlagName[] = [
  ...(["config", "json", "token", "identityToken", "resume", "overwrite", "plan"] as const),
];

/**
 * Flags that decide whom to trust, and whose code to run. `isologit.yaml` cannot set them: a downloaded folder may hold one,
 * and the program may be run in it. A file that `--config` names can.
 */
const TRUSTED: readonly FlagName[] = [...TRUST, ...SIGNING, "plugin"];

/** @param commands names of all commands. @throws USAGE naming file and key; NOT_FOUND for the file of `--config` */
export async function fileFlags(
  { name, flags, helps = {} }: Command,
  commands: readonly string[],
  given: string | undefined,
): Promise<Flags> {
  const file = given ?? DEFAULT_FILE;
  const text = await readFile(file, "utf8").catch((error: unknown) => {
    const known = systemError(error, { file });
    const isAbsent = known instanceof IsologitError && known.code === "NOT_FOUND" && given === undefined;
    if (!isAbsent) throw known;
    return null;
  });
  if (text === null) return {};
  const entries = Object.entries(await parsed(text, file));
  // `verify` is a command and a flag: a map holds flags of the command
  const sections = entries.filter(([key, value]) => commands.includes(key) && isJsonObject(value));
  const shared = entries.filter((entry) => !sections.includes(entry));
  const own = Object.entries(sections.find(([key]) => key === name)?.[1] ?? {});
  const found = {
    ...flagsIn(shared, file, helps, (flag) => flags.includes(flag)),
    ...flagsIn(own, `${file}: ${name}`, helps, (flag, key) => {
      if (flags.includes(flag)) return true;
      throw invalid(file, `${key} is not a flag of ${name}`);
    }),
  };
  const trusted = TRUSTED.find((flag) => given === undefined && flag in found);
  if (trusted === undefined) return found;
  throw invalid(
    file,
    `${longName(FLAGS[trusted]).slice(2)} is accepted from a file that --config names, and not from here`,
  );
}

/** What a run says of flags that it took from a file: a limit or a level of verification must not change in silence. */
export function fileLine({ config = DEFAULT_FILE }: Flags, found: Flags): string {
  const names = (Object.keys(found) as FlagName[]).map((flag) => longName(FLAGS[flag]));
  return `flags from ${escapeControls(config)}: ${names.join(", ")}`;
}

async function parsed(text: string, file: string): Promise<Readonly<Record<string, unknown>>> {
  const { parse } = await import("yaml");
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 0 }) ?? {};
  } catch (cause) {
    throw new IsologitError(
      "USAGE",
      `the file is not valid YAML: ${(cause as Error).message}`,
      { file },
      { cause },
    );
  }
  if (isJsonObject(value)) return value;
  throw invalid(file, "it is not a map of flags");
}

/** The flags of some keys, each read by the reader that its flag has in the command. */
function flagsIn(
  entries: readonly (readonly [string, unknown])[],
  place: string,
  helps: NonNullable<Command["helps"]>,
  isWanted: (flag: FlagName, key: string) => boolean,
): Flags {
  const values = entries.flatMap(([key, value]): [string, unknown][] => {
    const flag = flagOf(key, place);
    return isWanted(flag, key)
      ? [[flag, flagValue({ ...FLAGS[flag], ...helps[flag] }, value, `${key} in ${place}`)]]
      : [];
  });
  return Object.fromEntries(values); // each value was read by its flag's reader
}

function flagOf(key: string, file: string): FlagName {
  const found = (Object.keys(FLAGS) as FlagName[]).find((flag) => longName(FLAGS[flag]) === `--${key}`);
  if (found === undefined) throw invalid(file, `${key} is no flag and no command`);
  if (!ONLY_ON_COMMAND_LINE.includes(found)) return found;
  throw invalid(file, `${key} is accepted on the command line only`);
}

function flagValue({ read, bare, repeatable }: Flag, value: unknown, name: string): unknown {
  if (typeof value === "boolean" && (read === undefined || (bare === true && value))) return value;
  const given = repeatable === true ? [value].flat() : [value];
  if (read === undefined || !given.every((one) => typeof one === "string" || typeof one === "number")) {
    const expected = read === undefined ? "true or false" : "a text or a number";
    throw new IsologitError("USAGE", `${name} is ${JSON.stringify(value)}, expected ${expected}`);
  }
  const values = given.map((one) => read(String(one), name));
  return repeatable === true ? values.flat() : values[0];
}

function invalid(file: string, message: string): IsologitError {
  return new IsologitError(
    "USAGE",
    message,
    { file },
    { next: "`isologit <command> --help` lists the flags of a command" },
  );
}
