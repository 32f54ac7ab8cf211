/** `upload`: a file or a folder into a Hub repository, with a card that says what it is. */
import type { UploadOptions, UploadReport } from "../../index.ts";
import { defineCommand, REPOSITORY } from "../command.ts";
import { WITH_EVENTS } from "../options.ts";
import { bytes, counted, facts, rate, seconds, type View, visible } from "../render.ts";

export const upload = defineCommand<UploadOptions>({
  name: "upload",
  summary: "upload a file or a folder to the Hub, with a model card that states the verdict",
  places: [
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
    "token",
    ...WITH_EVENTS,
  ],
  examples: [
    "upload me/nemotron-h-8b-fp8 ./nemotron-h-8b-fp8 --base-model nvidia/Nemotron-H-8B-Base-8K",
    "upload me/nemotron-h-8b model.isologit --private",
    "upload me/nemotron-h-8b ./8b --exclude *.log --create-pr",
  ],
  async run({ places: { REPO, PATH, PATH_IN_REPO: pathInRepo }, options }, { library }) {
    const path = PATH ?? REPO!.split("/").at(-1)!;
    const report = await library.upload(REPO!, path, {
      ...options,
      ...(pathInRepo !== undefined && { pathInRepo }),
    });
    return { report, exit: 0, text: (view) => uploadText(report, view) };
  },
});

const uploadText = (report: UploadReport, view: View): string[] =>
  facts(view, [
    ["published", visible(report.pullRequest ?? report.url)],
    ["files", `${counted(report.files.length, "file")}, ${bytes(report.bytes)}`],
    ["sent", `${bytes(report.sent)} in ${counted(report.commits.length, "commit")}, the rest was there`],
    ["card", cardText(report)],
    ["time", `${seconds(report.seconds)}, ${rate(report.sent, report.seconds)}`],
  ]);

const cardText = ({ card, verdict }: UploadReport): string =>
  !card
    ? "none: it is no checkpoint"
    : verdict === null
      ? "README.md says that nothing was proved: there is no certificate"
      : `README.md says what was converted, and the verdict: ${verdict}`;
