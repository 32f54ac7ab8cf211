/** `check`: whether a checkpoint hangs together, from headers alone, or with every byte read. */

import type { CheckOptions, FindingsReport } from "../../index.ts";
import { defineCommand, SOURCE } from "../command.ts";
import { findingLines, nameFlagsIn } from "../findings.ts";
import { SOURCE_OPTIONS, WITH_REPORTS } from "../options.ts";
import { counted, type View } from "../render.ts";

export const check = defineCommand<CheckOptions>({
  name: "check",
  summary: "check that index, headers, config, tokenizer and scales agree; reads no weights without --read",
  places: [SOURCE],
  flags: [...SOURCE_OPTIONS, "read", "keepGoing", "strict", ...WITH_REPORTS],
  examples: ["check ./nemotron-h-8b", "check model.isologit --read", "check ./damaged --keep-going"],
  async run({ places: { SRC }, options }, { library }) {
    const report = nameFlagsIn(await library.check(SRC!, options));
    const subject = { command: "check", address: SRC!, report } as const;
    return { report, subject, exit: report.ok ? 0 : 1, text: (view) => checkText(report, view) };
  },
});

function checkText({ ok, findings }: FindingsReport, view: View): string[] {
  return [
    ...findingLines(findings, view),
    `${counted(findings.length, "finding")}; ${ok ? "it hangs together" : "it is not sound"}`,
  ];
}
