/** `generate`: continues a prompt. The text goes to stdout token by token, the timing to stderr. */
import { escapeControls, formatQuantity } from "../../core/figures.ts";
import type { GenerateOptions, GenerateReport } from "../../index.ts";
import { defineCommand, SOURCE } from "../command.ts";
import { MACHINE, OUTPUT, PROMPT, SAMPLING, SOURCE_OPTIONS } from "../options.ts";
import { formatDuration } from "../render.ts";

export const generate = defineCommand<GenerateOptions>({
  name: "generate",
  summary: "write text that continues a prompt, to inspect a model; not meant for serving",
  positionals: [SOURCE],
  flags: [...SOURCE_OPTIONS, ...PROMPT, "chat", ...SAMPLING, ...MACHINE, ...OUTPUT],
  helps: {
    tokens: { about: "largest number of new tokens", default: "64" },
    ids: { about: "token ids of the prompt, for example 1,2,3" },
    seed: { about: "seed of the sampling", default: "0" },
  },
  examples: [
    "generate ./nemotron-h-8b --prompt Once --tokens 16",
    "generate model.isologit --prompt Hello --chat --temperature 0.7 --top-p 0.9 --seed 1",
  ],
  async run({ positionals: { SRC }, flags: { json = false }, options }, session) {
    const report = await session.library.generate(SRC!, {
      ...options,
      ...(!json && { onText: (piece) => session.printResult(shown(piece)) }),
    });
    if (!json) {
      session.printResult("\n");
      session.printLine(rateOf(report));
    }
    return { report, exit: 0, text: () => [] };
  },
});

/** Line breaks and tabs stay; other control characters could change the terminal. */
const shown = (piece: string): string => piece.replace(/[^\n\t]+/g, escapeControls);

function rateOf({
  backend,
  device,
  promptIds,
  ids,
  stopped,
  promptSeconds,
  seconds: took,
}: GenerateReport): string {
  const steps = ids.length - 1; // the first token is a result of the prompt
  const rate = steps > 0 && took > 0 ? `, ${(steps / took).toFixed(2)} tokens/s` : "";
  const end = stopped === "eos" ? "stopped at the end token" : "stopped after --tokens";
  const read = `${formatQuantity(promptIds.length, "token")} read in ${formatDuration(promptSeconds)}`;
  return `${backend}, ${escapeControls(device)}: ${read}; ${formatQuantity(ids.length, "token")} written in ${formatDuration(took)}${rate}; ${end}`;
}
