/** From flags and environment to the options of the library, by the table of flags. */
import { readFile } from "node:fs/promises";
import { IsologitError, systemError, withLocation } from "../core/errors.ts";
import type { FormatsReport } from "../index.ts";
import { PROMISED_ENDINGS, PROMISED_FORMATS } from "./absent.ts";
import type { Command } from "./command.ts";
import { type Flag, longName } from "./flag.ts";
import { type AnyOptions, FLAG_NAMES, FLAGS, type FlagName, type Flags } from "./options.ts";
import type { Session } from "./session.ts";
import { readPrompts, refuseWord } from "./values.ts";

const rowOf = (name: FlagName): Flag => FLAGS[name];

/**
 * Options of the library: one for each flag that is set. Loads the plug-ins.
 *
 * @throws USAGE, NOT_FOUND, PLUGIN_INVALID
 */
export async function libraryOptions(
  flags: Flags,
  { name, severalPrompts }: Pick<Command, "name" | "severalPrompts">,
  { watch, signal, library }: Pick<Session, "watch" | "signal" | "library">,
): Promise<AnyOptions & Pick<Session, "watch" | "signal">> {
  const prompts = await promptIds(flags);
  const [ids] = prompts ?? [];
  if (prompts !== undefined && prompts.length > 1 && severalPrompts !== true) {
    const message = `${flags.idsFile} holds ${prompts.length} prompts, and ${name} runs one`;
    throw new IsologitError("USAGE", message, {}, { next: "give a file with one list of ids" });
  }
  const plugins = flags.plugin === undefined ? undefined : await library.loadPlugins(flags.plugin);
  const named = FLAG_NAMES.flatMap((name): [string, unknown][] => {
    const { option = name } = rowOf(name);
    return option === null || flags[name] === undefined ? [] : [[option, flags[name]]];
  });
  return {
    watch,
    signal,
    ...Object.fromEntries(named),
    ...(ids !== undefined && (prompts!.length > 1 ? { prompts } : { ids })),
    ...(plugins !== undefined && { plugins }),
  };
}

/** Flags that the environment sets; an empty variable counts as absent. */
export function environmentFlags({ flags }: Command, env: Session["env"]): Flags {
  const values = flags.flatMap((name): [string, unknown][] => {
    const { env: variable, read } = rowOf(name);
    const text = variable === undefined ? undefined : env[variable];
    return text && read !== undefined ? [[name, read(text, variable!)]] : [];
  });
  return Object.fromEntries(values); // each value was read by its flag's reader
}

/** Token ids of each prompt of `--ids` or `--ids-file`; only one of these, `--prompt` and `--prompt-file` may be given. */
async function promptIds(flags: Flags): Promise<readonly (readonly number[])[] | undefined> {
  const both = (["ids", "idsFile", "prompt", "promptFile"] as const).filter(
    (name) => flags[name] !== undefined,
  );
  if (both.length > 1) {
    const [first, second] = both.map((name) => longName(FLAGS[name]));
    throw new IsologitError("USAGE", `${first} and ${second} were both given, expected one of them`);
  }
  if (flags.idsFile !== undefined) return await promptsIn(flags.idsFile);
  return flags.ids === undefined ? undefined : [flags.ids];
}

async function promptsIn(file: string): Promise<readonly (readonly number[])[]> {
  try {
    return readPrompts(await readFile(file, "utf8"), "--ids-file");
  } catch (error) {
    throw withLocation(systemError(error, { file }), { file });
  }
}

/** Names of formats by the software that loads them. */
const FORMAT_ALIASES: Readonly<Record<string, string>> = {
  ...{ huggingface: "hf", transformers: "hf", safetensors: "hf", vllm: "hf" },
  ...{ nemo: "nemo2", "megatron-bridge": "bridge", torch_dist: "bridge", "megatron-lm": "megatron" },
  isologit: "packed",
};

/**
 * The format that `--to` names, else the format that has the ending of DST; undefined if there is none.
 *
 * @throws NOT_WRITTEN for a format of another version, or one that is only read; USAGE for an unknown name
 */
export function targetOf({ to: given }: Flags, dst: string, known: FormatsReport): string | undefined {
  const written = known.formats.filter((format) => format.writes);
  const to = given !== undefined && Object.hasOwn(FORMAT_ALIASES, given) ? FORMAT_ALIASES[given] : given;
  if (to !== undefined) {
    if (written.some((format) => format.id === to)) return to;
    const promised = PROMISED_FORMATS.some((id) => id === to) || known.formats.some(({ id }) => id === to);
    if (promised) throw new IsologitError("NOT_WRITTEN", `--to ${to} is not written by this version`);
    return refuseWord(
      "--to",
      to,
      written.map(({ id }) => id),
    );
  }
  const path = dst.replace(/\/+$/, "");
  const named = written.find((format) => format.endings.some((ending) => path.endsWith(ending)));
  const ending = PROMISED_ENDINGS.find((candidate) => path.endsWith(candidate));
  if (named === undefined && ending !== undefined) {
    throw new IsologitError("NOT_WRITTEN", `${ending} files are not written by this version`, { file: dst });
  }
  return named?.id;
}

/** @throws USAGE: neither a flag nor the ending of DST names the format */
export function refuseWithoutTarget(dst: string): never {
  throw new IsologitError(
    "USAGE",
    `--to is missing, and the ending of ${JSON.stringify(dst)} names no format`,
    {},
    { next: "add --to with one of the formats that `isologit formats` lists as written" },
  );
}
