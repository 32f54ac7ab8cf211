/** What a command is to the command line: its words, its flags, and one call of the library. */

import type { Subject } from "../report/subject.ts";
import type { FlagHelp } from "./flag.ts";
import type { FlagName, Flags } from "./options.ts";
import type { View } from "./render.ts";
import type { Session } from "./session.ts";

export interface Command {
  readonly name: string;
  readonly summary: string;
  /** in order; all must be given, but those in `optional` */
  readonly places: readonly Place[];
  readonly flags: readonly FlagName[];
  /** help of flags that have another meaning here than in other commands */
  readonly helps?: Readonly<Partial<Record<FlagName, FlagHelp>>>;
  /** without the leading `isologit` */
  readonly examples: readonly string[];
  /** @param rest what was given in a place that takes several */
  run(
    places: Readonly<Record<string, string>>,
    flags: Flags,
    session: Session,
    rest: readonly string[],
  ): Promise<Outcome>;
}

export interface Place {
  readonly name: string;
  readonly about: string;
  readonly optional?: true;
  /** the last place only: any number of them */
  readonly several?: true;
}

/** An argument as help shows it: `<SRC>`, `[B]`, `[FILES...]`. */
export function placeSpec({ name, optional, several }: Place): string {
  const shown = several ? `${name}...` : name;
  return optional ? `[${shown}]` : `<${shown}>`;
}

export interface Outcome {
  /** what `--json` prints */
  readonly report: object;
  /** the same with what a report has to know of the run; of commands that take --report */
  readonly subject?: Subject;
  /** what a person reads */
  readonly text: (view: View) => readonly string[];
  /** 1: a check failed */
  readonly exit: 0 | 1;
  /** said on stderr, `--json` or not, when the work was done and its result may not be used */
  readonly complaint?: { readonly message: string; readonly next: string };
}

export const SOURCE = {
  name: "SRC",
  about: "checkpoint to read: a folder, a file, or hf://owner/name[@revision][/folder]",
} as const;
export const DESTINATION = { name: "DST", about: "folder or packed file to write" } as const;
export const REPOSITORY = { name: "REPO", about: "repository on the Hub: owner/name" } as const;
