/** `upload`: copies a file or a folder into a Hub repository, with a model card. */
import { escapeControls, formatBytes, formatQuantity } from "../../core/figures.ts";
import type { UploadOptions, UploadReport } from "../../index.ts";
import { defineCommand, REPOSITORY } from "../command.ts";
import { WITH_EVENTS } from "../options.ts";
import { factTable, formatDuration, formatRate, type View } from "../render.ts";

export const upload = defineCommand<UploadOptions>({
  name: "upload",
  summary: "upload a file or a folder to the Hub, with a model card that states the verdict",
  positionals: [
    REPOSITORY,
    {
      name: "PATH",
      about: "file or folder to upload (default: the name of the repository)",
      optional: true,
    },
    {
      name: "PATH_IN_REPO",
      about: "path in the repository (default: the root, or the name of the file)",
      optional: true,
    },
  ],
  flags: [
    "include",
    "exclude",
    "revision",
    "private",
    "createPr",
    "commitMessage",
    "baseModel",
    "license",
    "token",
    ...WITH_EVENTS,
  ],
  examples: [
    "upload me/8b-fp8 ./8b-fp8 --base-model nvidia/Nemotron-H-8B-Base-8K --license other",
    "upload me/nemotron-h-8b model.isologit --private",
    "upload me/nemotron-h-8b ./8b --exclude '*.log' --create-pr",
  ],
  async run({ positionals: { REPO, PATH, PATH_IN_REPO: pathInRepo }, options }, { library }) {
    const path = PATH ?? REPO!.split("/").at(-1)!;
    const report = await library.upload(REPO!, path, {
      ...options,
      ...(pathInRepo !== undefined && { pathInRepo }),
    });
    return { report, exit: 0, text: (view) => uploadText(report, view) };
  },
});

const uploadText = (report: UploadReport, view: View): string[] =>
  factTable(view, [
    ["published at", escapeControls(report.pullRequest ?? report.url)],
    ["files", `${formatQuantity(report.files.length, "file")}, ${formatBytes(report.bytes)}`],
    [
      "sent",
      `${formatBytes(report.sent)} in ${formatQuantity(report.commits.length, "commit")}, the rest was there already`,
    ],
    ["card", cardText(report)],
    ["time", `${formatDuration(report.seconds)}, ${formatRate(report.sent, report.seconds)}`],
  ]);

const cardText = ({ card, verdict }: UploadReport): string =>
  !card
    ? "none, because this is not a checkpoint"
    : verdict === null
      ? "README.md states that nothing was proved, because there is no certificate"
      : `README.md states what was converted, and the verdict: ${verdict}`;
