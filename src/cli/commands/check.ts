/** `check`: finds contradictions in a checkpoint, from its headers or from every byte. */
import { formatQuantity } from "../../core/figures.ts";
import type { CheckOptions, CheckReport } from "../../index.ts";
import { defineCommand, SOURCE } from "../command.ts";
import { findingLines, nameFlagsIn } from "../findings.ts";
import { SOURCE_OPTIONS, WITH_REPORTS } from "../options.ts";
import type { View } from "../render.ts";

export const check = defineCommand<CheckOptions>({
  name: "check",
  summary: "check that index, headers, config, tokenizer and scales agree; reads no weights without --read",
  positionals: [SOURCE],
  flags: [...SOURCE_OPTIONS, "for", "read", "keepGoing", "strict", ...WITH_REPORTS],
  examples: [
    "check ./nemotron-h-8b",
    "check ./nemotron-h-8b-fp8 --for vllm,trtllm",
    "check model.isologit --read",
    "check ./damaged --keep-going",
  ],
  async run({ positionals: { SRC }, options }, { library }) {
    const report = nameFlagsIn(await library.check(SRC!, options));
    const subject = { command: "check", address: SRC!, report } as const;
    return { report, subject, exit: report.ok ? 0 : 1, text: (view) => checkText(report, view) };
  },
});

function checkText({ ok, findings, servable }: CheckReport, view: View): string[] {
  const none = findings.length === 0 ? "no problems found" : "none is an error";
  return [
    ...findingLines(findings, view),
    `${formatQuantity(findings.length, "finding")}; ${ok ? none : "the checkpoint has errors"}`,
    ...(servable === true ? ["engines can serve it as it stands"] : []),
  ];
}
