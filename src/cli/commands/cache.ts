/** `cache`: what of the Hub is on this machine. */
import type { CacheReport, CacheVerifyReport } from "../../index.ts";
import type { Command, Outcome } from "../command.ts";
import { OUTPUT } from "../options.ts";
import { bytes, counted, facts, grouped, headed, type View, visible } from "../render.ts";
import type { Session } from "../session.ts";
import { refuse } from "../values.ts";

export const cache: Command = {
  name: "cache",
  summary: "list, check or remove files of the Hub cache",
  places: [
    { name: "ACTION", about: "ls, verify or rm" },
    { name: "REPO", about: "owner/name; for rm also owner/name@revision", optional: true },
  ],
  flags: OUTPUT,
  examples: [
    "cache ls",
    "cache verify nvidia/Nemotron-H-8B-Base-8K",
    "cache rm nvidia/Nemotron-H-8B-Base-8K@main",
  ],
  async run({ places: { ACTION, REPO } }, session) {
    switch (ACTION) {
      case "ls":
        return await list(REPO, session);
      case "verify":
        return await check(REPO, session);
      case "rm":
        return await remove(REPO ?? refuse("REPO", "", "owner/name, or owner/name@revision"), session);
      default:
        return refuse("ACTION", ACTION!, "one of ls, verify, rm");
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
      visible(repo),
      one.commit.slice(0, 12),
      one.refs.map(visible).join(" "),
      grouped(one.files),
      bytes(one.bytes),
      one.whole === null ? "" : one.whole ? "whole" : "in part",
    ]),
    ...(incompleteBytes > 0
      ? [[visible(repo), "", "", "", bytes(incompleteBytes), "being fetched, or broken off"]]
      : []),
  ]);
  return [
    ...facts(view, [
      ["cache", visible(report.path)],
      ["size", `${bytes(report.bytes)} in ${counted(report.repos.length, "repository", "repositories")}`],
    ]),
    ...(rows.length === 0
      ? []
      : ["", ...headed(view, ["repository", "commit", "refs", "files", "bytes", ""], rows, "lllrr")]),
  ];
}

async function check(repo: string | undefined, { library, signal }: Session): Promise<Outcome> {
  const report = await library.cacheVerify(repo, { signal });
  return { report, exit: report.ok ? 0 : 1, text: (view) => checkText(report, view) };
}

const checkText = (report: CacheVerifyReport, view: View): string[] => [
  ...facts(view, [
    ["read", `${counted(report.blobs, "blob")}, ${bytes(report.bytes)}`],
    [
      "verdict",
      report.ok
        ? view.paint("green", "as fetched")
        : view.paint("red", counted(report.findings.length, "finding")),
    ],
  ]),
  ...report.findings.map(({ at, message }) => `${visible(at.file)}: ${visible(message)}`),
];

async function remove(target: string, { library }: Session): Promise<Outcome> {
  const report = await library.cacheRm(target);
  return {
    report,
    exit: 0,
    text: (view) =>
      facts(view, [
        ["removed", report.removed.map(visible)],
        ["freed", bytes(report.bytes)],
      ]),
  };
}
