/** Errors, warnings and findings of the library name its options in backquotes; the command line shows the flags. */
import type { Flag } from "./flag.ts";
import { longName } from "./flag.ts";
import { FLAG_NAMES, FLAGS } from "./options.ts";

const FLAG_OF_OPTION: ReadonlyMap<string, string> = new Map(
  FLAG_NAMES.map((name): [string, string] => {
    const row: Flag = FLAGS[name];
    return [row.option ?? name, longName(row)];
  }),
);

/** `` `maxShardBytes` `` becomes `--max-shard-size`; other words in backquotes stay. */
export const nameFlags = (text: string): string =>
  text.replace(/`(\w+)`/g, (quoted, option: string) => FLAG_OF_OPTION.get(option) ?? quoted);
