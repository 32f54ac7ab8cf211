/** `logits`: runs one forward pass and writes its logits to a file. */
import { escapeControls, formatCount, formatQuantity } from "../../core/figures.ts";
import type { LogitsOptions, LogitsReport } from "../../index.ts";
import { defineCommand, SOURCE } from "../command.ts";
import { MACHINE, PROMPTS, SOURCE_OPTIONS, WITH_EVENTS } from "../options.ts";
import { factTable, formatDuration, type View } from "../render.ts";

const DEFAULT_OUT = "logits.safetensors";

export const logits = defineCommand<LogitsOptions>({
  name: "logits",
  summary: "run a forward pass and write its logits, or the largest of each position, to a safetensors file",
  positionals: [SOURCE],
  flags: [...SOURCE_OPTIONS, "out", "hidden", "topK", ...PROMPTS, ...MACHINE, "overwrite", ...WITH_EVENTS],
  helps: {
    topK: {
      about:
        "write only this many most probable ids of each position, with their log probabilities, and the log of the sum of all exponentials",
      default: "all logits",
    },
    idsFile: {
      about:
        "file with token ids, separated by commas or white space, or as a JSON list; with --top-k a JSON list of lists is several prompts",
    },
  },
  severalPrompts: true,
  examples: [
    "logits ./nemotron-h-8b --ids 1,2,3 --out logits.safetensors",
    "logits model.isologit --tokens 16 --seed 7 --hidden --out hidden.safetensors --json",
    "logits ./nemotron-h-8b --tokens 256 --top-k 64 --out teacher.safetensors",
  ],
  async run({ positionals: { SRC }, options }, { library }) {
    const report = await library.logits(SRC!, { ...options, out: options.out ?? DEFAULT_OUT });
    return { report, exit: 0, text: (view) => logitsText(report, view) };
  },
});

const logitsText = (report: LogitsReport, view: View): string[] =>
  factTable(view, [
    ["wrote", escapeControls(report.out)],
    ["logits", report.topK === undefined ? allText(report) : largestText(report)],
    ["run on", `${escapeControls(report.backend)}, ${escapeControls(report.device)}`],
    ["time", `${formatDuration(report.seconds)}${speed(report)}`],
  ]);

const allText = ({ tokens, vocab }: LogitsReport): string =>
  `F32, ${formatQuantity(tokens, "token")} x ${formatCount(vocab)} vocabulary entries`;

const largestText = ({ tokens, vocab, prompts = 1, topK = 0 }: LogitsReport): string =>
  `the ${formatCount(topK)} largest of ${formatCount(vocab)}, ${formatQuantity(tokens, "token")} in ${formatQuantity(prompts, "prompt")}`;

const speed = ({ tokens, seconds: took }: LogitsReport): string =>
  took > 0 ? `, ${(tokens / took).toFixed(1)} tokens/s` : "";
