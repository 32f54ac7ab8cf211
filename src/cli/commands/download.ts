/** `download`: files of a Hub repository into the cache, or a folder. Arguments and flags as Python's `hf`. */
import type { DownloadOptions, DownloadReport } from "../../index.ts";
import { defineCommand, REPOSITORY } from "../command.ts";
import { WITH_EVENTS } from "../options.ts";
import { bytes, counted, facts, rate, seconds, type View, visible } from "../render.ts";

export const download = defineCommand<DownloadOptions>({
  name: "download",
  summary: "download files of a Hub repository and check them; a second run continues",
  places: [
    REPOSITORY,
    { name: "FILES", about: "paths in the repository (default: all files)", optional: true, several: true },
  ],
  flags: ["include", "exclude", "revision", "localDir", "token", ...WITH_EVENTS],
  examples: [
    "download nvidia/Nemotron-H-8B-Base-8K",
    "download nvidia/Nemotron-H-8B-Base-8K config.json tokenizer.json",
    'download nvidia/Nemotron-H-8B-Base-8K --include "*.safetensors" --local-dir ./8b',
  ],
  async run({ places: { REPO }, rest: files, options }, { library }) {
    const report = await library.download(REPO!, { ...options, files });
    return { report, exit: 0, text: (view) => downloadText(report, view) };
  },
});

const downloadText = (report: DownloadReport, view: View): string[] =>
  facts(view, [
    ["path", visible(report.path)],
    ["commit", `${report.commit}, ${visible(report.revision)} of ${visible(report.repo)}`],
    ["files", `${counted(report.files.length, "file")}, ${bytes(report.bytes)}`],
    ["fetched", `${bytes(report.fetched)}, the rest was there`],
    ["time", `${seconds(report.seconds)}, ${rate(report.fetched, report.seconds)}`],
  ]);
