/** What a flag is: its spelling, its help text, and the function that reads its value. */
import { choiceReader, choicesReader, type Reader } from "./values.ts";

export interface FlagHelp {
  /** meaning, without the choices and the default */
  readonly about: string;
  /** the only values that are accepted */
  readonly choices?: readonly string[];
  /** what holds without the flag, in words */
  readonly default?: string;
}

export interface Flag<T = unknown> extends FlagHelp {
  /** as commander reads it: `--memory <size>`, `-q, --quiet` */
  readonly spec: string;
  /** absent for a switch */
  readonly read?: Reader<T>;
  /** the value may be left out, which means true */
  readonly bare?: true;
  /** may be given several times: `read` reads one value or a list, and all values count */
  readonly repeatable?: true;
  /** the library's option, if it has another name than the flag's key; null: the library has no such option */
  readonly option?: string | null;
  /** environment variable that sets the flag's value, if the flag is not given */
  readonly env?: string;
}

/** Flags that belong together, with the heading of the help text below which they stand. */
export function flagGroup<const T extends Readonly<Record<string, Flag>>>(heading: string, flags: T) {
  return Object.fromEntries(Object.entries(flags).map(([name, flag]) => [name, { ...flag, heading }])) as {
    // every row of `flags` got the heading, and nothing else changed
    readonly [K in keyof T]: T[K] & { readonly heading: string };
  };
}

/** The choices of a flag, with the function that reads them, and other spellings of them. */
export const oneOf = <const W extends string>(
  choices: readonly W[],
  aliases: Readonly<Record<string, NoInfer<W>>> = {},
) => ({
  choices,
  read: choiceReader(choices, aliases),
});

/** As `oneOf`, for a list with commas; the flag may be given several times. */
export const someOf = <const W extends string>(choices: readonly W[]) =>
  ({ choices, read: choicesReader(choices), repeatable: true }) as const;

/** The keys of a group, in order. */
export const namesOf = <T extends object>(group: T): readonly (keyof T)[] =>
  Object.keys(group) as (keyof T)[]; // a group is a literal: it has no other keys

/** The value of a flag after parsing. */
export type ValueOf<F> = F extends { readonly read: Reader<infer T> }
  ? F extends { readonly repeatable: true }
    ? readonly (T extends readonly (infer I)[] ? I : T)[]
    : F extends { readonly bare: true }
      ? T | true
      : T
  : boolean;

/** The long name: `--memory`, also of `-q, --quiet`. */
export const longName = ({ spec }: Pick<Flag, "spec">): string => /--[\w-]+/.exec(spec)![0];

/** Meaning, choices and default as one text: `alignment in bytes: 256 or 4096 (default: 256)`. */
export function helpText({ about, choices, default: usual }: FlagHelp): string {
  const listed = choices === undefined ? "" : `: ${joinChoices(choices)}`;
  return `${about}${listed}${usual === undefined ? "" : ` (default: ${usual})`}`;
}

/** `a, b or c` */
export function joinChoices(words: readonly string[]): string {
  const last = words.at(-1)!;
  return words.length < 2 ? last : `${words.slice(0, -1).join(", ")} or ${last}`;
}
