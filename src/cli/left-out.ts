/** What a conversion does not carry over, and what it adds: said in every report, so that nobody misses it. */
import type { ConvertReport } from "../index.ts";
import { bytes, counted, visible } from "./render.ts";

type Row = readonly [label: string, value: readonly string[]];

export function leftOut({ dropped, padding }: Pick<ConvertReport, "dropped" | "padding">): readonly Row[] {
  const rows = (count: number, what: string) =>
    count === 0 ? [] : [`${counted(count, "row")} of padding ${what}, of the token table and of the head`];
  return [
    [
      "left out",
      dropped.map(({ why, entries, bytes: size }) => {
        const what =
          size === undefined
            ? counted(entries, "entry", "entries")
            : `${counted(entries, "file")}, ${bytes(size)}`;
        return `${what}: ${visible(why)}`;
      }),
    ],
    ["padding", [...rows(padding.cut, "cut"), ...rows(padding.added, "added")]],
  ];
}
