/** `scan`: what other software would execute of a checkpoint, and what should not be in it. */
import type { Finding, ScanReport } from "../../api.ts";
import type { Command } from "../command.ts";
import { WATCHED } from "../options.ts";
import { some, type View, visible } from "../render.ts";

export const scan: Command = {
  name: "scan",
  summary: "pickled code, remote code, surprising files; executes nothing",
  places: [{ name: "PATH", about: "a checkpoint, or a file of any kind" }],
  flags: ["keepGoing", ...WATCHED],
  examples: ["scan ./downloaded", "scan model.nemo --keep-going", "scan pytorch_model.bin --json"],
  async run({ PATH }, flags, session) {
    const { watch, signal } = session;
    const keepGoing = flags.keepGoing ?? false;
    const report = await session.library.scan(PATH!, { watch, signal, keepGoing });
    return { report, exit: report.ok ? 0 : 1, text: (view) => scanText(report, view) };
  },
};

const COLOURS = { note: "dim", warning: "yellow", error: "red", danger: "red" } as const;

function scanText({ ok, findings }: ScanReport, view: View): string[] {
  const lines = findings.map((finding) => line(finding, view));
  const verdict = ok
    ? "nothing here runs code by being read"
    : "do not load this with software that unpickles";
  const count = findings.length === 1 ? "1 finding" : `${findings.length} findings`;
  return [...some(lines, view.verbose ? Number.POSITIVE_INFINITY : 200), `${count}; ${verdict}`];
}

function line({ rule, severity, at, message }: Finding, { paint }: View): string {
  const place = [
    visible(at.file),
    at.tensor === null ? [] : visible(at.tensor),
    at.offset === null ? [] : `byte ${at.offset}`,
  ];
  return `${paint(COLOURS[severity], severity)}  ${rule}  ${visible(message)}, in ${place.flat().join(", ")}`;
}
