/** Flags about running a model: its prompt, how tokens are drawn, and the machine. */
import { flagGroup, oneOf } from "../flag.ts";
import { decimalReader, integerReader, readIds, readSize, readText } from "../values.ts";

const PROMPT = "Prompt options:";

export const PROMPT_FLAGS = flagGroup(PROMPT, {
  tokens: {
    spec: "--tokens <n>",
    about: "number of token ids that are drawn with the seed",
    default:
      "64, after a bundled text if there is a tokenizer; 16 to compare checkpoints of which none is recast",
    read: integerReader(1, 2 ** 20),
  },
  ids: {
    spec: "--ids <list>",
    about: "token ids in place of the drawn ones, for example 1,2,3",
    read: readIds,
  },
  idsFile: {
    spec: "--ids-file <file>",
    option: null, // the command line reads the file and sets `ids` or `prompts`
    about: "file with token ids, separated by commas or white space, or as a JSON list",
    read: readText,
  },
  prompt: {
    spec: "--prompt <text>",
    about: "text that the tokenizer.json of the checkpoint turns into token ids",
    read: readText,
  },
  seed: {
    spec: "--seed <n>",
    about: "seed of the token ids",
    default: "0",
    read: integerReader(0, Number.MAX_SAFE_INTEGER),
  },
});

export const PROMPT_FILE_FLAGS = flagGroup(PROMPT, {
  promptFile: {
    spec: "--prompt-file <file>",
    about:
      "file of prompts, each run from an empty state: texts for the tokenizer.json of the checkpoint, one a line, JSON lines with a text or ids, or token ids",
    read: readText,
  },
});

export const CHAT_FLAGS = flagGroup(PROMPT, {
  chat: {
    spec: "--chat",
    about: "put the text of --prompt into the chat template of the checkpoint, as the user's message",
  },
});

export const SAMPLING_FLAGS = flagGroup("Sampling options:", {
  temperature: {
    spec: "--temperature <x>",
    about: "draw the next token after dividing the logits by this number; 0 takes the most probable token",
    default: "0",
    read: decimalReader(0, 1000, "a number"),
  },
  topK: {
    spec: "--top-k <n>",
    about: "draw only from this many most probable tokens",
    read: integerReader(1, 2 ** 31),
  },
  topP: {
    spec: "--top-p <fraction>",
    about: "draw only from the most probable tokens that together have this probability",
    read: decimalReader(0, 1, "a fraction"),
  },
  ignoreEos: {
    spec: "--ignore-eos",
    about: "continue after a token that ends the text",
  },
});

export const SCORE_FLAGS = flagGroup("Score options:", {
  cheap: {
    spec: "--cheap",
    about:
      "run only the model itself, without runs that skip a layer: of the layers only the cosine is scored",
  },
});

export const MACHINE_FLAGS = flagGroup("Machine options:", {
  backend: {
    spec: "--backend <name>",
    env: "ISOLOGIT_BACKEND",
    about: "where the model runs",
    default: "auto, a hardware GPU if there is one, else wasm",
    ...oneOf(["auto", "webgpu", "wasm"]),
  },
  device: {
    spec: "--device <name>",
    about: "use the GPU whose name contains this text",
    read: readText,
  },
  threads: {
    spec: "--threads <n>",
    about: "number of threads",
    default: "one per core",
    read: integerReader(1, 1024),
  },
  memory: {
    spec: "--memory <size>",
    option: "memoryBytes",
    env: "ISOLOGIT_MEMORY",
    about: "largest total size of all buffers",
    default: "1GiB",
    read: readSize,
  },
});
