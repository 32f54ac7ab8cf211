/** `logits`: runs one forward pass and writes its logits to a file. */
import { escapeControls, formatCount, formatQuantity } from "../../core/figures.ts";
import type { LogitsOptions, LogitsReport } from "../../index.ts";
import { defineCommand, SOURCE } from "../command.ts";
import { MACHINE, PROMPT, SOURCE_OPTIONS, WITH_EVENTS } from "../options.ts";
import { factTable, formatDuration, type View } from "../render.ts";

const DEFAULT_OUT = "logits.safetensors";

export const logits = defineCommand<LogitsOptions>({
  name: "logits",
  summary: "run one forward pass and write its logits to a safetensors file",
  positionals: [SOURCE],
  flags: [...SOURCE_OPTIONS, "out", "hidden", ...PROMPT, ...MACHINE, "overwrite", ...WITH_EVENTS],
  examples: [
    "logits ./nemotron-h-8b --ids 1,2,3 --out logits.safetensors",
    "logits model.isologit --tokens 16 --seed 7 --hidden --out hidden.safetensors --json",
  ],
  async run({ positionals: { SRC }, options }, { library }) {
    const report = await library.logits(SRC!, { ...options, out: options.out ?? DEFAULT_OUT });
    return { report, exit: 0, text: (view) => logitsText(report, view) };
  },
});

const logitsText = (report: LogitsReport, view: View): string[] =>
  factTable(view, [
    ["wrote", escapeControls(report.out)],
    [
      "logits",
      `F32, ${formatQuantity(report.tokens, "token")} x ${formatCount(report.vocab)} vocabulary entries`,
    ],
    ["run on", `${escapeControls(report.backend)}, ${escapeControls(report.device)}`],
    ["time", `${formatDuration(report.seconds)}${speed(report)}`],
  ]);

const speed = ({ tokens, seconds: took }: LogitsReport): string =>
  took > 0 ? `, ${(tokens / took).toFixed(1)} tokens/s` : "";
