/** `generate`: text that follows a prompt, for eyes. Weights come from the disk anew for every token. */

import { checkChunks } from "../checkpoint/chunk-checks.ts";
import { loadModelWithScales } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { Sources } from "../core/read.ts";
import { Decoder } from "../inference/decoding/decoder.ts";
import { planDecoderMemory } from "../inference/decoding/decoder-memory.ts";
import { createSampler } from "../inference/decoding/sample.ts";
import { textStream } from "../inference/decoding/text-stream.ts";
import { backendFor } from "../inference/machine.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import { promptOf } from "../inference/prompts.ts";
import { Rounder } from "../inference/rounding.ts";
import { chatOf } from "../tokenizer/chat.ts";
import { jsonBeside, type Tokenizer, tokenizerOf } from "../tokenizer/tokenizer.ts";

export interface GenerateOptions extends RunOptions, SourceOptions {
  /** what the model reads; this or `prompt` */
  readonly ids?: readonly number[];
  readonly prompt?: string;
  /** `prompt` is what a user says in a chat, put as the checkpoint's template has it */
  readonly chat?: boolean;
  /** new tokens at most; default 64 */
  readonly tokens?: number;
  /** go on after the token that ends a text */
  readonly ignoreEos?: boolean;
  /** logits are divided by it; 0 (default) takes the best token always */
  readonly temperature?: number;
  /** draw from so many of the best tokens */
  readonly topK?: number;
  /** draw from the best tokens that together have this probability */
  readonly topP?: number;
  /** of what is drawn; default 0 */
  readonly seed?: number;
  /** called with each new piece of text, always of whole characters; with ids where there is no tokenizer */
  readonly onText?: (piece: string) => unknown;
}

export interface GenerateReport {
  readonly backend: string;
  readonly device: string;
  readonly promptIds: readonly number[];
  /** what followed; the token that ended the text among them */
  readonly ids: readonly number[];
  /** null where the checkpoint has no tokenizer */
  readonly text: string | null;
  readonly stopped: "eos" | "tokens";
  /** until the prompt was read, and from there to the end */
  readonly promptSeconds: number;
  readonly seconds: number;
  /** tokens of the prompt that were read at a time */
  readonly readAtOnce: number;
  /** what the model kept of earlier tokens at the end, bytes: for each token, and however many there are */
  readonly kept: { readonly perTokenBytes: number; readonly fixedBytes: number };
}

const DEFAULT_NEW_TOKENS = 64;

/**
 * Reads a prompt and goes on from it: `tokens` more, or up to the token that ends a text.
 *
 * @throws USAGE, UNSUPPORTED, PLAN_MEMORY, NON_FINITE, and what opening and matching refuse
 */
export async function generate(source: string, options: GenerateOptions): Promise<GenerateReport> {
  refuseContradictions(options);
  const checkpoint = checkChunks(await openCheckpoint(source, options.formats, options));
  const model = await loadModelWithScales(checkpoint, options);
  refuseUnrunnable(model);
  const tokenizer = await tokenizerOf(checkpoint);
  const promptIds = await idsFor(options, checkpoint, tokenizer, model.dims.vocab!);
  const ends = options.ignoreEos === true ? new Set<number>() : await endsOf(checkpoint);
  const tokens = options.tokens ?? DEFAULT_NEW_TOKENS;

  await using backend = await backendFor(options);
  const capacity = promptIds.length + tokens - 1; // nothing follows the last
  const room = await planDecoderMemory(model, options, backend.id, promptIds.length, capacity);
  await using sources = new Sources(checkpoint.store);
  const rounder = await Rounder.create();
  const { bandBytes, readAtOnce, cache } = room;
  const { signal, onText = () => {} } = options;
  const decoder = new Decoder({ model, backend, sources, rounder, bandBytes, capacity, signal });

  const started = performance.now();
  let logits: Float32Array = new Float32Array();
  for (let at = 0; at < promptIds.length; at += readAtOnce) {
    logits = await decoder.read(promptIds.slice(at, at + readAtOnce));
  }
  const read = performance.now();
  const choose = createSampler(options);
  const stream = tokenizer === null ? null : textStream(tokenizer);
  const ids: number[] = [];
  let text = "";
  const tell = (piece: string) => {
    text += piece;
    if (piece !== "") onText(piece);
  };
  let stopped: GenerateReport["stopped"] = "tokens";
  while (true) {
    const id = choose(logits);
    ids.push(id);
    if (ends.has(id)) {
      stopped = "eos";
      break;
    }
    tell(stream === null ? `${ids.length === 1 ? "" : " "}${id}` : stream.add(id));
    if (ids.length === tokens) break;
    logits = await decoder.read([id]);
  }
  if (stream !== null) tell(stream.end());
  const done = performance.now();
  decoder.close();
  return {
    backend: backend.id,
    device: backend.device,
    promptIds,
    ids,
    text: tokenizer === null ? null : text,
    stopped,
    promptSeconds: (read - started) / 1000,
    seconds: (done - read) / 1000,
    readAtOnce,
    kept: cache,
  };
}

/** @throws USAGE for a prompt that is missing, and for what would have no effect */
function refuseContradictions(options: GenerateOptions): void {
  const { ids, prompt, chat, temperature = 0, topK, topP, seed, tokens } = options;
  const refuse = (message: string, next: string): never => {
    throw new IsologitError("USAGE", message, {}, { next });
  };
  if (ids === undefined && prompt === undefined)
    refuse("there is no prompt", "give a text with `prompt`, or token ids with `ids`");
  if (chat === true && prompt === undefined)
    refuse("`chat` was given without a text", "give a text with `prompt`");
  if (tokens !== undefined && !(Number.isSafeInteger(tokens) && tokens >= 1))
    refuse(`\`tokens\` is ${tokens}, expected at least 1`, "give a whole number of new tokens");
  const drawing = { topK, topP, seed };
  for (const [option, value] of Object.entries(drawing)) {
    if (value !== undefined && temperature === 0)
      refuse(
        `\`${option}\` was given, and nothing is drawn at temperature 0`,
        "give `temperature`, for example 0.7",
      );
  }
}

async function idsFor(
  { ids, prompt, chat }: GenerateOptions,
  checkpoint: Checkpoint,
  tokenizer: Tokenizer | null,
  vocab: number,
): Promise<readonly number[]> {
  const chatted = chat === true && prompt !== undefined && tokenizer !== null;
  const bare = chatted ? tokenizer.encodeBare(await chatOf(checkpoint, prompt)) : undefined;
  const said = bare ?? ids;
  const options = {
    ...(said !== undefined && { ids: said }),
    ...(!chatted && prompt !== undefined && { prompt }),
  };
  return (await promptOf(options, checkpoint, vocab)).ids;
}

/** The tokens that end a text, as the generation config says, else the config. */
async function endsOf(checkpoint: Checkpoint): Promise<ReadonlySet<number>> {
  const generation = await jsonBeside(checkpoint, "generation_config.json");
  const said = [generation?.eos_token_id ?? checkpoint.config.eos_token_id].flat();
  return new Set(said.filter((id) => typeof id === "number"));
}
