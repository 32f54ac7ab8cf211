/** `verify`: are these two the same model? */
import { CERTIFIED } from "../../api/options.ts";
import { IsologitError } from "../../core/errors.ts";
import { passed } from "../../report/measures.ts";
import type { Command } from "../command.ts";
import { LIMITS, MACHINE, PROMPT, REPORTED, TELLING } from "../options.ts";
import { facts, visible } from "../render.ts";
import {
  certifiedOptions,
  limitOptions,
  promptOptions,
  runOptions,
  sourceOptions,
  strictOptions,
} from "../request.ts";
import { rootLines, verificationText } from "../verdict.ts";

export const verify: Command = {
  name: "verify",
  summary: "compare two checkpoints, or one checkpoint with its certificate",
  places: [
    { name: "A", about: "checkpoint to trust" },
    {
      name: "B",
      about: "checkpoint to judge; without B, A is compared with its certificate",
      optional: true,
    },
  ],
  flags: [...TELLING, "verify", "strict", ...CERTIFIED, ...LIMITS, ...PROMPT, ...MACHINE, ...REPORTED],
  helps: { verify: { about: "how much is compared", choices: ["logits", "bytes"], default: "logits" } },
  examples: [
    "verify ./nemotron-h-8b model.isologit",
    "verify ./nemotron-h-8b ./fp8 --kl 0.02 --top1 0.98 --json",
    "verify ./a ./b --verify bytes",
    "verify model.isologit --public-key release.pem",
    "verify ./model --bundle model.sig --public-key release.pem",
  ],
  async run({ A, B }, flags, session) {
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
      ...strictOptions(flags),
      ...certifiedOptions(flags), // which the library refuses beside a B
      ...(level === undefined ? {} : { verify: level }),
    });
    return {
      report,
      subject: { command: "verify", a: A!, b: B ?? null, report },
      exit: passed(report.verdict) ? 0 : 1,
      text: (view) => [
        ...facts(view, [
          ["A", visible(A!)],
          ["B", B === undefined ? null : visible(B)],
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
};
