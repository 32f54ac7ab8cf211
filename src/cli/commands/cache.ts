/** `cache`: files of the Hub on this machine. */
import { escapeControls, formatBytes, formatCount, formatQuantity } from "../../core/figures.ts";
import type { CacheReport, CacheVerifyReport } from "../../index.ts";
import type { Command, Outcome } from "../command.ts";
import { OUTPUT } from "../options.ts";
import { factTable, tableWithHead, type View } from "../render.ts";
import type { Session } from "../session.ts";
import { refuseValue, refuseWord } from "../values.ts";

const ALIASES: Readonly<Record<string, string | undefined>> = {
  ...{ list: "ls", check: "verify", remove: "rm", delete: "rm" },
};

export const cache: Command = {
  name: "cache",
  summary: "list, check or remove files of the Hub cache",
  positionals: [
    { name: "ACTION", about: "ls, verify or rm" },
    { name: "REPO", about: "owner/name; for rm also owner/name@revision", optional: true },
  ],
  flags: OUTPUT,
  examples: [
    "cache ls",
    "cache verify nvidia/Nemotron-H-8B-Base-8K",
    "cache rm nvidia/Nemotron-H-8B-Base-8K@main",
  ],
  async run({ positionals: { ACTION, REPO } }, session) {
    switch (ALIASES[ACTION!] ?? ACTION) {
      case "ls":
        return await list(REPO, session);
      case "verify":
        return await check(REPO, session);
      case "rm":
        return await remove(REPO ?? refuseValue("REPO", "", "owner/name, or owner/name@revision"), session);
      default:
        return refuseWord("ACTION", ACTION!, ["ls", "verify", "rm"]);
    }
  },
};

async function list(repo: string | undefined, { library }: Session): Promise<Outcome> {
  const report = await library.cacheLs(repo);
  return { report, exit: 0, text: (view) => listText(report, view) };
}

function listText(report: CacheReport, view: View): string[] {
  const rows = report.repos.flatMap(({ repo, revisions, incompleteBytes }) => [
    ...revisions.map((one) => [
      escapeControls(repo),
      one.commit.slice(0, 12),
      one.refs.map(escapeControls).join(" "),
      formatCount(one.files),
      formatBytes(one.bytes),
      one.whole === null ? "" : one.whole ? "complete" : "in part",
    ]),
    ...(incompleteBytes > 0
      ? [[escapeControls(repo), "", "", "", formatBytes(incompleteBytes), "incomplete download"]]
      : []),
  ]);
  return [
    ...factTable(view, [
      ["cache", escapeControls(report.path)],
      [
        "size",
        `${formatBytes(report.bytes)} in ${formatQuantity(report.repos.length, "repository", "repositories")}`,
      ],
    ]),
    ...(rows.length === 0
      ? []
      : ["", ...tableWithHead(view, ["repository", "commit", "refs", "files", "bytes", ""], rows, "lllrr")]),
  ];
}

async function check(repo: string | undefined, { library, signal }: Session): Promise<Outcome> {
  const report = await library.cacheVerify(repo, { signal });
  return { report, exit: report.ok ? 0 : 1, text: (view) => checkText(report, view) };
}

const checkText = (report: CacheVerifyReport, view: View): string[] => [
  ...factTable(view, [
    ["read", `${formatQuantity(report.blobs, "blob")}, ${formatBytes(report.bytes)}`],
    [
      "verdict",
      report.ok
        ? view.paint("green", "unchanged")
        : view.paint("red", formatQuantity(report.findings.length, "finding")),
    ],
  ]),
  ...report.findings.map(({ at, message }) => `${escapeControls(at.file)}: ${escapeControls(message)}`),
];

async function remove(target: string, { library }: Session): Promise<Outcome> {
  const report = await library.cacheRm(target);
  return {
    report,
    exit: 0,
    text: (view) =>
      factTable(view, [
        ["removed", report.removed.map(escapeControls)],
        ["freed", formatBytes(report.bytes)],
      ]),
  };
}
