/** `logits`: one forward pass, kept in a file. */
import type { LogitsReport } from "../../api/reports.ts";
import { type Command, SOURCE } from "../command.ts";
import { MACHINE, PROMPT, TELLING, WATCHED } from "../options.ts";
import { counted, facts, grouped, seconds, type View, visible } from "../render.ts";
import { promptOptions, runOptions, sourceOptions } from "../request.ts";

const DEFAULT_OUT = "logits.safetensors";

export const logits: Command = {
  name: "logits",
  summary: "run one forward pass and write its logits to a safetensors file",
  places: [SOURCE],
  flags: [...TELLING, "out", "hidden", ...PROMPT, ...MACHINE, "overwrite", ...WATCHED],
  examples: [
    "logits ./nemotron-h-8b --ids 1,2,3 --out logits.safetensors",
    "logits model.isologit --tokens 16 --seed 7 --hidden --json",
  ],
  async run({ SRC }, flags, session) {
    const { hidden, overwrite } = flags;
    const report = await session.library.logits(SRC!, {
      ...runOptions(flags, session),
      ...sourceOptions(flags),
      ...(await promptOptions(flags)),
      ...(hidden === undefined ? {} : { hidden }),
      ...(overwrite === undefined ? {} : { overwrite }),
      out: flags.out ?? DEFAULT_OUT,
    });
    return { report, exit: 0, text: (view) => logitsText(report, view) };
  },
};

const logitsText = (report: LogitsReport, view: View): string[] =>
  facts(view, [
    ["wrote", visible(report.out)],
    ["logits", `F32, ${counted(report.tokens, "token")} x ${grouped(report.vocab)} vocabulary entries`],
    ["run on", `${visible(report.backend)}, ${visible(report.device)}`],
    ["time", `${seconds(report.seconds)}${speed(report)}`],
  ]);

const speed = ({ tokens, seconds: took }: LogitsReport): string =>
  took > 0 ? `, ${(tokens / took).toFixed(1)} tokens/s` : "";
