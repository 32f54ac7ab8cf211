/** What a command is to the command line: its help texts, its flags, and one call of the library. */
import type { PluginsReport } from "../index.ts";
import type { Subject } from "../report/subject.ts";
import type { Flag, FlagHelp } from "./flag.ts";
import type { AnyOptions, FlagName, Flags, FlagsOf } from "./options.ts";
import type { View } from "./render.ts";
import type { Session } from "./session.ts";

export interface Command<F extends FlagName = FlagName, O extends object = AnyOptions> {
  readonly name: string;
  readonly summary: string;
  /** in order; all must be given except those in `optional` */
  readonly positionals: readonly Positional[];
  readonly flags: readonly F[];
  /** help of flags that have another meaning here than in other commands, or that accept other values */
  readonly helps?: Readonly<Partial<Record<F, FlagHelp & Partial<Pick<Flag, "read" | "spec">>>>>;
  /** `--ids-file` may have several prompts */
  readonly severalPrompts?: true;
  /** without the leading `isologit` */
  readonly examples: readonly string[];
  run(request: Request<O>, session: Session): Promise<Outcome>;
}

/**
 * A command whose library function has the options `O`. Each of its flags must set one of these options, or be for the
 * command line alone, so that no flag is accepted and then ignored.
 */
export function defineCommand<O extends object>(command: Command<FlagsOf<O>, O>): Command {
  return command as unknown as Command; // `libraryOptions` sets only options of flags that the command has
}

/** The parsed command line. */
export interface Arguments {
  readonly positionals: Readonly<Record<string, string>>;
  /** the values of a place that takes several */
  readonly rest: readonly string[];
  readonly flags: Flags;
}

export interface Request<O extends object = AnyOptions> extends Arguments {
  /** the flags as options of the library, with the values from the environment, the watcher and the signal */
  readonly options: Readonly<Partial<O>>;
}

interface Positional {
  readonly name: string;
  readonly about: string;
  readonly optional?: true;
  /** the last place only: any number of values */
  readonly several?: true;
}

/** An argument as help shows it: `<SRC>`, `[B]`, `[FILES...]`. */
export function positionalSpec({ name, optional, several }: Positional): string {
  const shown = several ? `${name}...` : name;
  return optional ? `[${shown}]` : `<${shown}>`;
}

export interface Outcome {
  /** what `--json` prints */
  readonly report: object & PluginsReport;
  /** the report with its context; of commands that take --report */
  readonly subject?: Subject;
  /** the text on stdout without `--json` */
  readonly text: (view: View) => readonly string[];
  /** 1: a check failed */
  readonly exit: 0 | 1;
  /** printed on stderr, also with `--json`, if the work was done and its result must not be used */
  readonly complaint?: { readonly message: string; readonly next: string };
}

export const SOURCE = {
  name: "SRC",
  about: "checkpoint to read: a folder, a file, or hf://owner/name[@revision][/folder]",
} as const;
export const DESTINATION = { name: "DST", about: "folder or packed file to write" } as const;
export const REPOSITORY = { name: "REPO", about: "repository on the Hub: owner/name" } as const;
