/** `formats`: lists what this version reads and writes. */
import type { FormatsReport, PluginOptions } from "../../index.ts";
import { defineCommand } from "../command.ts";
import { OUTPUT } from "../options.ts";
import { factTable, tableWithHead, type View } from "../render.ts";

export const formats = defineCommand<PluginOptions>({
  name: "formats",
  summary: "list the formats, dialects, families and recasts of this version and of plug-ins",
  positionals: [],
  flags: ["plugin", ...OUTPUT],
  examples: ["formats", "formats --json"],
  async run({ options }, { library }) {
    const report = await library.formats(options);
    return { report, exit: 0, text: (view) => formatsText(report, view) };
  },
});

const yes = (is: boolean): string => (is ? "yes" : "no");
const listed = (items: readonly string[]): string => items.join(", ") || "none";

const formatsText = (report: FormatsReport, view: View): string[] => [
  ...tableWithHead(
    view,
    ["format", "read", "written", "endings", "what it is"],
    report.formats.map(({ id, title, reads, writes, endings }) => [
      id,
      yes(reads),
      yes(writes),
      endings.join(" "),
      title,
    ]),
  ),
  "",
  ...tableWithHead(
    view,
    ["family", "dialects", "recipes"],
    report.families.map(({ id, recipes }) => [
      id,
      listed(report.dialects.filter(({ family }) => family === id).map((dialect) => dialect.id)),
      listed(recipes),
    ]),
  ),
  "",
  ...tableWithHead(
    view,
    ["recast", "written to"],
    report.recasts.map(({ id, writtenBy }) => [id, listed(writtenBy)]),
  ),
  "",
  ...factTable(view, [["backends", listed(report.backends)]]),
];
