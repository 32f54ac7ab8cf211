/** `verify`: are these two the same model? */
import { IsologitError } from "../../core/errors.ts";
import type { Command } from "../command.ts";
import { LIMITS, MACHINE, PROMPT, TELLING, WATCHED } from "../options.ts";
import { facts, visible } from "../render.ts";
import { limitOptions, promptOptions, runOptions, sourceOptions } from "../request.ts";
import { notAvailable } from "../values.ts";
import { passed, rootLines, verificationText } from "../verdict.ts";

export const verify: Command = {
  name: "verify",
  summary: "compare two checkpoints by structure, bytes and logits",
  places: [
    { name: "A", about: "the checkpoint to trust" },
    { name: "B", about: "the checkpoint to judge", optional: true },
  ],
  flags: [...TELLING, "verify", ...LIMITS, ...PROMPT, ...MACHINE, ...WATCHED],
  examples: [
    "verify ./nemotron-h-8b model.isologit",
    "verify ./nemotron-h-8b ./fp8 --kl 0.02 --top1 0.98 --json",
    "verify ./a ./b --verify bytes",
  ],
  async run({ A, B }, flags, session) {
    if (B === undefined) {
      notAvailable("verify A without B (against a certificate)", "name the checkpoint to compare with");
    }
    const level = flags.verify;
    if (level === "off") {
      throw new IsologitError(
        "USAGE",
        '--verify is "off", expected logits or bytes: there is nothing else to do',
      );
    }
    const report = await session.library.verify(A!, B, {
      ...runOptions(flags, session),
      ...sourceOptions(flags),
      ...(await promptOptions(flags)),
      ...limitOptions(flags),
      ...(level === undefined ? {} : { verify: level }),
    });
    return {
      report,
      exit: passed(report.verdict) ? 0 : 1,
      text: (view) => [
        ...facts(view, [
          ["A", visible(A!)],
          ["B", visible(B)],
          ["root", rootLines(report.roots.a, report.roots.b, ["A", "B"])],
        ]),
        "",
        ...verificationText(report, view),
      ],
    };
  },
};
