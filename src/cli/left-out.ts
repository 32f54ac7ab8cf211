/** Table rows for what a conversion leaves out and what it adds. */
import { escapeControls, formatBytes, formatQuantity } from "../core/figures.ts";
import type { ConvertReport } from "../index.ts";

type Row = readonly [label: string, value: readonly string[]];

export function leftOutRows({
  dropped,
  padding,
}: Pick<ConvertReport, "dropped" | "padding">): readonly Row[] {
  const rows = (count: number, what: string) =>
    count === 0
      ? []
      : [`${formatQuantity(count, "padding row")} ${what}, in the token table and in the head`];
  return [
    [
      "left out",
      dropped.map(({ why, entries, bytes: size }) => {
        const what =
          size === undefined
            ? formatQuantity(entries, "entry", "entries")
            : `${formatQuantity(entries, "file")}, ${formatBytes(size)}`;
        return `${what}: ${escapeControls(why)}`;
      }),
    ],
    ["padding", [...rows(padding.cut, "removed"), ...rows(padding.added, "added")]],
  ];
}
