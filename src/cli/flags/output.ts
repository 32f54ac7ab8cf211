/** Flags about the Hub, and about what a command prints. */
import { REPORT_KINDS } from "../../report/kinds.ts";
import { flagGroup } from "../flag.ts";
import { readReports, readText } from "../values.ts";

export const HUB_FLAGS = flagGroup("Hub options:", {
  include: {
    spec: "--include <glob>",
    about: "transfer only files that match; may be given several times",
    read: readText,
    repeatable: true,
  },
  exclude: {
    spec: "--exclude <glob>",
    about: "do not transfer files that match; may be given several times",
    read: readText,
    repeatable: true,
  },
  revision: {
    spec: "--revision <name>",
    about: "branch, tag or commit",
    default: "main",
    read: readText,
  },
  localDir: {
    spec: "--local-dir <folder>",
    about: "folder to download into, in place of the cache",
    read: readText,
  },
  dryRun: {
    spec: "--dry-run",
    about: "show what would be transferred, and transfer nothing",
  },
  private: {
    spec: "--private",
    about: "if the repository is new, make it private",
  },
  createPr: {
    spec: "--create-pr",
    about: "open a pull request; do not commit to the branch",
  },
  commitMessage: {
    spec: "--commit-message <text>",
    about: "title of the commit",
    read: readText,
  },
  baseModel: {
    spec: "--base-model <owner/name>",
    about: "model that was converted, for the model card",
    read: readText,
  },
  license: {
    spec: "--license <id>",
    about: "licence for the model card, by its id on the Hub, such as apache-2.0",
    default: "what README.md says",
    read: readText,
  },
  token: {
    spec: "--token <token>",
    about: "access token of the Hub",
    default: "HF_TOKEN, or the token that `hf auth login` saved",
    read: readText,
  },
});

const OUTPUT = "Output options:";

export const OUTPUT_FLAGS = flagGroup(OUTPUT, {
  config: {
    spec: "--config <file>",
    option: null,
    about: "YAML file with flags; flags on the command line win",
    default: "isologit.yaml in the current folder, if it exists",
    read: readText,
  },
  json: {
    spec: "--json",
    option: null,
    about: "print one JSON object on stdout, and nothing else",
  },
  quiet: {
    spec: "-q, --quiet",
    option: null,
    about: "print the result without progress and warnings; of a verification, the verdict alone",
  },
  verbose: {
    spec: "--verbose",
    option: null,
    about: "print every measure, long lists in full, and the stack of an unexpected error",
  },
  progress: {
    spec: "--no-progress",
    option: null,
    about: "show no progress bar; print a line every 30 s",
  },
});

export const FILE_FLAGS = flagGroup(OUTPUT, {
  events: {
    spec: "--events <file>",
    option: null,
    about: "write progress to a file, one JSON object per line",
    read: readText,
  },
  report: {
    spec: "--report <list>",
    option: null,
    about: `write reports to files, also when a check fails: ${REPORT_KINDS.map((kind) => `${kind}=FILE`).join(",")}; may be given several times`,
    read: readReports,
    repeatable: true,
  },
});
