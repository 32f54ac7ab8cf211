/** `generate`: what a model says after a prompt. Text goes to stdout as it comes; how long it took is talk. */
import type { GenerateReport } from "../../api/reports.ts";
import { type Command, SOURCE } from "../command.ts";
import { MACHINE, PROMPT, TALK, TELLING } from "../options.ts";
import { counted, seconds, visible } from "../render.ts";
import { given, promptOptions, runOptions, sourceOptions } from "../request.ts";

export const generate: Command = {
  name: "generate",
  summary: "write text that continues a prompt, to inspect a model; not meant for serving",
  places: [SOURCE],
  flags: [...TELLING, ...PROMPT, "chat", "temperature", "topK", "topP", "ignoreEos", ...MACHINE, ...TALK],
  helps: {
    tokens: { about: "largest number of new tokens", default: "64" },
    ids: { about: "token ids of the prompt, for example 1,2,3" },
    seed: { about: "seed of the sampling", default: "0" },
  },
  examples: [
    "generate ./nemotron-h-8b --prompt Once --tokens 16",
    "generate model.isologit --prompt Hello --chat --temperature 0.7 --top-p 0.9 --seed 1",
  ],
  async run({ SRC }, flags, session) {
    const { chat, temperature, topK, topP, ignoreEos, json } = flags;
    const report = await session.library.generate(SRC!, {
      ...runOptions(flags, session),
      ...sourceOptions(flags),
      ...(await promptOptions(flags)),
      ...given({ chat, temperature, topK, topP, ignoreEos }),
      ...(json === true ? {} : { onText: (piece: string) => session.write(shown(piece)) }),
    });
    if (json !== true) {
      session.write("\n");
      session.say(rateOf(report));
    }
    return { report, exit: 0, text: () => [] };
  },
};

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
