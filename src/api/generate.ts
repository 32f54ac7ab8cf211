/** `generate`: continues a prompt. The weights are read from the disk again for every token. */

import { checkChunks } from "../checkpoint/chunk-checks.ts";
import { decodeWeights, loadModelWithScales } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { Sources } from "../core/read.ts";
import { Decoder } from "../inference/decoding/decoder.ts";
import { planDecoderMemory } from "../inference/decoding/decoder-memory.ts";
import { createSampler } from "../inference/decoding/sample.ts";
import { createTextStream } from "../inference/decoding/text-stream.ts";
import { backendFor } from "../inference/machine.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import { promptOf } from "../inference/prompts.ts";
import { Rounder } from "../inference/rounding.ts";
import { type PluginsReport, pluginsReport } from "../plugins/plugin.ts";
import { chatOf } from "../tokenizer/chat.ts";
import { jsonBeside, type Tokenizer, tokenizerOf } from "../tokenizer/tokenizer.ts";

export interface GenerateOptions extends RunOptions, SourceOptions {
  /** token ids of the prompt; give `ids` or `prompt` */
  readonly ids?: readonly number[];
  /** text of the prompt */
  readonly prompt?: string;
  /** `prompt` is the message of a user; the chat template of the checkpoint is applied */
  readonly chat?: boolean;
  /** largest number of new tokens; default 64 */
  readonly tokens?: number;
  /** continue after the token that ends a text */
  readonly ignoreEos?: boolean;
  /** divisor of the logits; 0 (default) always chooses the most probable token */
  readonly temperature?: number;
  /** number of the most probable tokens to draw from */
  readonly topK?: number;
  /** draw from the most probable tokens that together have this probability */
  readonly topP?: number;
  /** seed of the random draws; default 0 */
  readonly seed?: number;
  /** called with each new piece of text, always whole characters; with ids if there is no tokenizer */
  readonly onText?: (piece: string) => unknown;
}

export interface GenerateReport extends PluginsReport {
  readonly backend: string;
  readonly device: string;
  readonly promptIds: readonly number[];
  /** new tokens, with the token that ended the text */
  readonly ids: readonly number[];
  /** text of the new tokens; null if the checkpoint has no tokenizer */
  readonly text: string | null;
  readonly stopped: "eos" | "tokens";
  /** time until the prompt was read */
  readonly promptSeconds: number;
  /** time from there to the end */
  readonly seconds: number;
  /** tokens of the prompt that one step read */
  readonly readAtOnce: number;
  /** size of the state cache at the end: bytes for each token, and bytes that do not depend on the number of tokens */
  readonly kept: { readonly perTokenBytes: number; readonly fixedBytes: number };
}

const DEFAULT_NEW_TOKENS = 64;

/**
 * Reads a prompt and generates tokens: at most `tokens`, or up to the token that ends a text.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param options the prompt, the number of tokens and how to choose them
 * @returns the new tokens and their text, the backend and the times
 * @throws USAGE, UNSUPPORTED, PLAN_MEMORY, NON_FINITE, and the errors of opening and matching a checkpoint
 * @example
 * const { text } = await generate("./nemotron-h-8b", { prompt: "The capital of France is", tokens: 8 });
 */
export async function generate(source: string, options: GenerateOptions): Promise<GenerateReport> {
  refuseContradictions(options);
  const checkpoint = checkChunks(await openCheckpoint(source, options));
  const model = decodeWeights(await loadModelWithScales(checkpoint, options));
  refuseUnrunnable(model);
  const tokenizer = await tokenizerOf(checkpoint);
  const promptIds = await idsFor(options, checkpoint, tokenizer, model.dims.vocab);
  const ends = options.ignoreEos === true ? new Set<number>() : await endsOf(checkpoint);
  const tokens = options.tokens ?? DEFAULT_NEW_TOKENS;

  await using backend = await backendFor(options);
  const capacity = promptIds.length + tokens - 1; // no pass runs after the last token
  const memory = await planDecoderMemory(model, options, backend.id, promptIds.length, capacity);
  await using sources = new Sources(model.checkpoint.store);
  const rounder = await Rounder.create();
  const { bandBytes, readAtOnce, cache } = memory;
  const { signal, onText = () => {} } = options;
  const decoder = new Decoder({ model, backend, sources, rounder, bandBytes, capacity, signal });

  const started = performance.now();
  let logits: Float32Array = new Float32Array();
  for (let at = 0; at < promptIds.length; at += readAtOnce) {
    logits = await decoder.read(promptIds.slice(at, at + readAtOnce));
  }
  const read = performance.now();
  const choose = createSampler(options);
  const stream = tokenizer === null ? null : createTextStream(tokenizer);
  const ids: number[] = [];
  let text = "";
  const emit = (piece: string) => {
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
    emit(stream === null ? `${ids.length === 1 ? "" : " "}${id}` : stream.add(id));
    if (ids.length === tokens) break;
    logits = await decoder.read([id]);
  }
  if (stream !== null) emit(stream.end());
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
    ...pluginsReport(options),
  };
}

/** @throws USAGE: the prompt is missing, or an option would have no effect */
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
      refuse(`\`${option}\` has no effect at temperature 0`, "give `temperature`, for example 0.7");
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
  const encoded = bare ?? ids;
  const options = {
    ...(encoded !== undefined && { ids: encoded }),
    ...(!chatted && prompt !== undefined && { prompt }),
  };
  return (await promptOf(options, checkpoint, vocab)).ids;
}

/** The tokens that end a text: of the generation config, else of the config. */
async function endsOf(checkpoint: Checkpoint): Promise<ReadonlySet<number>> {
  const generation = await jsonBeside(checkpoint, "generation_config.json");
  const ends = [generation?.eos_token_id ?? checkpoint.config.eos_token_id].flat();
  return new Set(ends.filter((id) => typeof id === "number"));
}
