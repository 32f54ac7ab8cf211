/** `generate`: what a model says after a prompt. Text goes to stdout as it comes; how long it took is talk. */
import type { GenerateOptions, GenerateReport } from "../../index.ts";
import { defineCommand, SOURCE } from "../command.ts";
import { MACHINE, OUTPUT, PROMPT, SAMPLING, SOURCE_OPTIONS } from "../options.ts";
import { counted, seconds, visible } from "../render.ts";

export const generate = defineCommand<GenerateOptions>({
  name: "generate",
  summary: "write text that continues a prompt, to inspect a model; not meant for serving",
  places: [SOURCE],
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
  async run({ places: { SRC }, flags: { json = false }, options }, session) {
    const report = await session.library.generate(SRC!, {
      ...options,
      ...(!json && { onText: (piece) => session.write(shown(piece)) }),
    });
    if (!json) {
      session.write("\n");
      session.say(rateOf(report));
    }
    return { report, exit: 0, text: () => [] };
  },
});

/** Lines and tabs are text; other controls would steer the terminal. */
const shown = (piece: string): string => piece.replace(/[^\n\t]+/g, visible);

function rateOf({
  backend,
  device,
  promptIds,
  ids,
  stopped,
  promptSeconds,
  seconds: took,
}: GenerateReport): string {
  const steps = ids.length - 1; // the first token comes of the prompt
  const rate = steps > 0 && took > 0 ? `, ${(steps / took).toFixed(2)} tokens/s` : "";
  const end = stopped === "eos" ? "stopped at the end token" : "stopped after --tokens";
  const read = `${counted(promptIds.length, "token")} read in ${seconds(promptSeconds)}`;
  return `${backend}, ${visible(device)}: ${read}; ${counted(ids.length, "token")} written in ${seconds(took)}${rate}; ${end}`;
}
