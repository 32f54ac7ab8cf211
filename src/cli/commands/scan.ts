/** `scan`: what other software would execute of a checkpoint, and what should not be in it. */

import type { FindingsOptions, FindingsReport } from "../../index.ts";
import { defineCommand } from "../command.ts";
import { findingLines, nameFlagsIn } from "../findings.ts";
import { WITH_REPORTS } from "../options.ts";
import { counted, type View } from "../render.ts";

export const scan = defineCommand<FindingsOptions>({
  name: "scan",
  summary: "find pickled code, remote code and unexpected files; executes nothing",
  places: [{ name: "PATH", about: "checkpoint, or file of any kind; also hf://owner/name" }],
  flags: ["keepGoing", ...WITH_REPORTS],
  examples: ["scan ./downloaded", "scan model.nemo --keep-going", "scan pytorch_model.bin --json"],
  async run({ places: { PATH }, options }, { library }) {
    const report = nameFlagsIn(await library.scan(PATH!, options));
    const subject = { command: "scan", address: PATH!, report } as const;
    return { report, subject, exit: report.ok ? 0 : 1, text: (view) => scanText(report, view) };
  },
});

function scanText({ ok, findings }: FindingsReport, view: View): string[] {
  const verdict = ok
    ? "nothing here runs code by being read"
    : "do not load this with software that unpickles";
  return [...findingLines(findings, view), `${counted(findings.length, "finding")}; ${verdict}`];
}
