/** `download`: copies files of a Hub repository into the cache or a folder, with the flags of Python's `hf`. */
import { escapeControls, formatBytes, formatQuantity } from "../../core/figures.ts";
import type { DownloadOptions, DownloadReport } from "../../index.ts";
import { defineCommand, REPOSITORY } from "../command.ts";
import { WITH_EVENTS } from "../options.ts";
import { factTable, formatDuration, formatRate, tableWithHead, type View } from "../render.ts";

export const download = defineCommand<DownloadOptions>({
  name: "download",
  summary: "download files of a Hub repository and check them; a second run continues",
  positionals: [
    REPOSITORY,
    { name: "FILES", about: "paths in the repository (default: all files)", optional: true, several: true },
  ],
  flags: ["include", "exclude", "revision", "localDir", "dryRun", "token", ...WITH_EVENTS],
  examples: [
    "download nvidia/Nemotron-H-8B-Base-8K",
    "download nvidia/Nemotron-H-8B-Base-8K config.json tokenizer.json",
    'download nvidia/Nemotron-H-8B-Base-8K --include "*.safetensors" --local-dir ./8b',
  ],
  async run({ positionals: { REPO }, rest: files, options }, { library }) {
    const report = await library.download(REPO!, { ...options, files });
    return { report, exit: 0, text: (view) => downloadText(report, view) };
  },
});

const downloadText = (report: DownloadReport, view: View): string[] =>
  report.dryRun ? dryText(report, view) : doneText(report, view);

/** The files, those that are here already marked. */
const dryText = (report: DownloadReport, view: View): string[] => [
  ...tableWithHead(
    view,
    ["bytes", "file", ""],
    report.files.map(({ path, size, fetched }) => [
      formatBytes(size),
      escapeControls(path),
      fetched === 0 ? "here already" : "",
    ]),
    "rll",
  ),
  "",
  ...factTable(view, [
    ["would fetch", `${formatBytes(report.fetched)} of ${formatBytes(report.bytes)}`],
    ["into", escapeControls(report.path)],
  ]),
];

const doneText = (report: DownloadReport, view: View): string[] =>
  factTable(view, [
    ["path", escapeControls(report.path)],
    ["commit", `${report.commit}, ${escapeControls(report.revision)} of ${escapeControls(report.repo)}`],
    ["files", `${formatQuantity(report.files.length, "file")}, ${formatBytes(report.bytes)}`],
    ["fetched", `${formatBytes(report.fetched)}, the rest was here already`],
    ["time", `${formatDuration(report.seconds)}, ${formatRate(report.fetched, report.seconds)}`],
  ]);
