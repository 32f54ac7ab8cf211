/** `verify`: decides whether two checkpoints are the same model. */
import { escapeControls } from "../../core/figures.ts";
import type { VerifyOptions } from "../../index.ts";
import { isProven } from "../../verify/verdict.ts";
import { defineCommand } from "../command.ts";
import { nameFlagsInVerification } from "../findings.ts";
import { oneOf } from "../flag.ts";
import { LIMITS, MACHINE, PROMPT, SOURCE_OPTIONS, TRUST, WITH_REPORTS } from "../options.ts";
import { factTable } from "../render.ts";
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
      text: (view) => [
        ...factTable(view, [
          ["A", escapeControls(A!)],
          ["B", B === undefined ? null : escapeControls(B)],
          [
            "root",
            rootLines(report.roots.a, report.roots.b, B === undefined ? ["certified", "found"] : ["A", "B"]),
          ],
        ]),
        "",
        ...verificationText(report, view),
      ],
    };
  },
});
