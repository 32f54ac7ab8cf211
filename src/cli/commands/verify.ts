/** `verify`: decides whether two checkpoints are the same model. */
import { escapeControls } from "../../core/figures.ts";
import type { VerifyOptions, VerifyReport } from "../../index.ts";
import { isProven } from "../../verify/verdict.ts";
import { defineCommand } from "../command.ts";
import { nameFlagsInVerification } from "../findings.ts";
import { oneOf } from "../flag.ts";
import { LIMITS, MACHINE, PROMPT, SOURCE_OPTIONS, TRUST, WITH_REPORTS } from "../options.ts";
import { factTable, type View } from "../render.ts";
import { phaseTexts, verifyHeadline, verifySummary } from "../summary.ts";
import { rootLines, verificationText } from "../verdict.ts";

export const verify = defineCommand<VerifyOptions>({
  name: "verify",
  summary: "compare two checkpoints, or one checkpoint with its certificate",
  positionals: [
    { name: "A", about: "checkpoint to trust" },
    {
      name: "B",
      about: "checkpoint to judge; without B, A is compared with its certificate",
      optional: true,
    },
  ],
  flags: [
    ...SOURCE_OPTIONS,
    "verify",
    "strict",
    "certificate",
    "bundle",
    ...TRUST,
    ...LIMITS,
    ...PROMPT,
    ...MACHINE,
    ...WITH_REPORTS,
  ],
  helps: { verify: { about: "how much is compared", default: "logits", ...oneOf(["logits", "bytes"]) } },
  examples: [
    "verify ./nemotron-h-8b model.isologit",
    "verify ./nemotron-h-8b ./fp8 --kl 0.02 --top1 0.98 --json",
    "verify ./a ./b --verify bytes",
    "verify model.isologit --public-key release.pem",
    "verify ./model --bundle model.sig --public-key release.pem",
  ],
  async run({ positionals: { A, B }, options }, { library }) {
    const report = nameFlagsInVerification(await library.verify(A!, B, options));
    return {
      report,
      subject: { command: "verify", a: A!, b: B ?? null, report },
      exit: isProven(report.verdict) ? 0 : 1,
      text: (view) => {
        const headline = verifyHeadline(report, { a: A!, b: B ?? null }, view);
        if (view.quiet) return headline;
        if (!view.verbose) return [...headline, ...verifySummary(report, view)];
        return [...headline, "", ...verifyDetails(report, A!, B, view)];
      },
    };
  },
});

function verifyDetails(
  report: VerifyReport,
  a: string,
  b: string | undefined,
  view: View,
): readonly string[] {
  const { roots } = report;
  return [
    ...factTable(view, [
      ["A", escapeControls(a)],
      ["B", b === undefined ? null : escapeControls(b)],
      ["root", rootLines(roots.a, roots.b, b === undefined ? ["certified", "found"] : ["A", "B"])],
      ["time", phaseTexts(view)],
    ]),
    "",
    ...verificationText(report, view),
  ];
}
