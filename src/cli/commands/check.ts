/** `check`: whether a checkpoint hangs together, from headers alone, or with every byte read. */
import type { FindingsReport } from "../../api/reports.ts";
import { type Command, SOURCE } from "../command.ts";
import { findingLines } from "../findings.ts";
import { REPORTED, TELLING } from "../options.ts";
import { counted, type View } from "../render.ts";
import { sourceOptions, strictOptions } from "../request.ts";

export const check: Command = {
  name: "check",
  summary: "check that index, headers, config, tokenizer and scales agree; reads no weights without --read",
  places: [SOURCE],
  flags: [...TELLING, "read", "keepGoing", "strict", ...REPORTED],
  examples: ["check ./nemotron-h-8b", "check model.isologit --read", "check ./damaged --keep-going"],
  async run({ SRC }, flags, session) {
    const { watch, signal } = session;
    const report = await session.library.check(SRC!, {
      watch,
      signal,
      ...sourceOptions(flags),
      ...strictOptions(flags),
      keepGoing: flags.keepGoing ?? false,
      ...(flags.read === true && { read: true }),
    });
    const subject = { command: "check", address: SRC!, report } as const;
    return { report, subject, exit: report.ok ? 0 : 1, text: (view) => checkText(report, view) };
  },
};

function checkText({ ok, findings }: FindingsReport, view: View): string[] {
  return [
    ...findingLines(findings, view),
    `${counted(findings.length, "finding")}; ${ok ? "it hangs together" : "it is not sound"}`,
  ];
}
