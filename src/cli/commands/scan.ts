/** `scan`: finds code that other software would execute, and files that do not belong in a checkpoint. */
import { formatQuantity } from "../../core/figures.ts";
import type { FindingsOptions, FindingsReport } from "../../index.ts";
import { defineCommand } from "../command.ts";
import { findingLines, nameFlagsIn } from "../findings.ts";
import { WITH_REPORTS } from "../options.ts";
import type { View } from "../render.ts";

export const scan = defineCommand<FindingsOptions>({
  name: "scan",
  summary: "find pickled code, remote code and unexpected files; executes nothing",
  positionals: [{ name: "PATH", about: "checkpoint, or file of any kind; also hf://owner/name" }],
  flags: ["keepGoing", ...WITH_REPORTS],
  examples: ["scan ./downloaded", "scan model.nemo --keep-going", "scan pytorch_model.bin --json"],
  async run({ positionals: { PATH }, options }, { library }) {
    const report = nameFlagsIn(await library.scan(PATH!, options));
    const subject = { command: "scan", address: PATH!, report } as const;
    return { report, subject, exit: report.ok ? 0 : 1, text: (view) => scanText(report, view) };
  },
});

function scanText({ ok, findings }: FindingsReport, view: View): string[] {
  const faults = findings.filter(({ severity }) => severity === "error" || severity === "danger");
  const verdict = ok
    ? "reading this runs no code"
    : faults.every(({ rule }) => rule === "template-code")
      ? "do not render its chat template without a sandbox"
      : "do not load this with software that reads pickles";
  return [...findingLines(findings, view), `${formatQuantity(findings.length, "finding")}; ${verdict}`];
}
