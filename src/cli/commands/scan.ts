/** `scan`: what other software would execute of a checkpoint, and what should not be in it. */
import type { FindingsReport } from "../../api/reports.ts";
import type { Command } from "../command.ts";
import { findingLines } from "../findings.ts";
import { REPORTED } from "../options.ts";
import { counted, type View } from "../render.ts";

export const scan: Command = {
  name: "scan",
  summary: "find pickled code, remote code and unexpected files; executes nothing",
  places: [{ name: "PATH", about: "checkpoint, or file of any kind; also hf://owner/name" }],
  flags: ["keepGoing", ...REPORTED],
  examples: ["scan ./downloaded", "scan model.nemo --keep-going", "scan pytorch_model.bin --json"],
  async run({ PATH }, flags, session) {
    const { watch, signal } = session;
    const keepGoing = flags.keepGoing ?? false;
    const report = await session.library.scan(PATH!, { watch, signal, keepGoing });
    const subject = { command: "scan", address: PATH!, report } as const;
    return { report, subject, exit: report.ok ? 0 : 1, text: (view) => scanText(report, view) };
  },
};

function scanText({ ok, findings }: FindingsReport, view: View): string[] {
  const verdict = ok
    ? "nothing here runs code by being read"
    : "do not load this with software that unpickles";
  return [...findingLines(findings, view), `${counted(findings.length, "finding")}; ${verdict}`];
}
