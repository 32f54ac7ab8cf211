/** `logits`: runs forward passes and writes logits to a safetensors file: all of them in blocks of the vocabulary, or the largest. */

import type { Backend } from "../../kernels/kernel.ts";
import { checkChunks } from "../checkpoint/chunk-checks.ts";
import { loadModelWithScales, type ModelWithScales } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import {
  bytesOfArray,
  refuseExistingFile,
  type TensorEntry,
  type WriteTensor,
  writeTensorFile,
} from "../checkpoint/tensor-file.ts";
import { IsologitError } from "../core/errors.ts";
import type { MatchedModel } from "../families/model.ts";
import { type LogitsBlock, runForwardPass } from "../inference/forward-pass.ts";
import { backendFor } from "../inference/machine.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import { type PromptsOptions, promptsOf } from "../inference/prompt-groups/prompt-file.ts";
import { runTopLogits } from "../inference/prompt-groups/top-logits.ts";
import { type PluginsReport, pluginsReport } from "../plugins/plugin.ts";

export interface LogitsOptions extends RunOptions, SourceOptions, PromptsOptions {
  /** path of the safetensors file to write */
  readonly out: string;
  /** also write the residual stream after each layer, and the experts that the router chose */
  readonly hidden?: boolean;
  /** write only this many most probable ids of each position; then several prompts may be given */
  readonly topK?: number;
  /** replace a file that exists */
  readonly overwrite?: boolean;
}

export interface LogitsReport extends PluginsReport {
  readonly backend: string;
  readonly device: string;
  /** of all prompts */
  readonly tokens: number;
  readonly vocab: number;
  /** number of prompts; only with `topK` */
  readonly prompts?: number;
  /** ids that were written of each position; absent: all logits were written */
  readonly topK?: number;
  readonly seconds: number;
  readonly out: string;
}

/**
 * Runs one forward pass and writes `input_ids` [T] I64 and `logits` [T, vocab] F32. With `hidden`, the file also has the
 * residual stream, `hidden.0` (embedding) to `hidden.N` (after layer N - 1) and `hidden.norm_f`, each [T, hidden] F32,
 * and the experts that each token chose in layer L, `experts.L` [T, experts per token] I32, ascending.
 *
 * With `topK`, the file has for each prompt i the most probable ids in place of the logits: `input_ids.i` [T] I64, `topk.ids.i`
 * [T, k] I32, `topk.logprobs.i` [T, k] F32 and `logsumexp.i` [T] F32. Each prompt runs from an empty state.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param options the file to write and the prompt
 * @returns backend, number of tokens, size of the vocabulary, seconds and the path of the file
 * @throws DESTINATION_EXISTS, UNSUPPORTED, and the errors of opening and matching a checkpoint; USAGE for several prompts without
 *   `topK`; no file stays after an error
 * @example
 * await logits("./nemotron-h-8b", { out: "logits.safetensors", prompt: "The capital of France is" });
 */
export async function logits(source: string, options: LogitsOptions): Promise<LogitsReport> {
  const started = performance.now();
  const checkpoint = checkChunks(await openCheckpoint(source, options));
  const model = await loadModelWithScales(checkpoint, options);
  refuseUnrunnable(model);
  const { vocab } = model.dims;
  const prompts = (await promptsOf(options, checkpoint, vocab)).map(({ ids }) => ids);
  refuseContradictions(options, prompts.length, vocab);
  await refuseExistingFile(options.out, options.overwrite);
  await using backend = await backendFor(options);
  if (options.topK === undefined) await writeAllLogits(model, prompts[0]!, backend, options);
  else await writeTopLogits(model, prompts, options.topK, backend, options);
  const seconds = (performance.now() - started) / 1000;
  return {
    backend: backend.id,
    device: backend.device,
    tokens: prompts.reduce((sum, { length }) => sum + length, 0),
    vocab: vocab,
    ...(options.topK !== undefined && { prompts: prompts.length, topK: options.topK }),
    seconds,
    out: options.out,
    ...pluginsReport(options),
  };
}

function refuseContradictions({ topK, hidden }: LogitsOptions, prompts: number, vocab: number): void {
  const refuse = (message: string, next: string) => new IsologitError("USAGE", message, {}, { next });
  if (topK === undefined) {
    if (prompts === 1) return;
    throw refuse(
      `${prompts} prompts were given, and all logits are written of one`,
      "give `topK`, or one prompt",
    );
  }
  if (!Number.isSafeInteger(topK) || topK < 1 || topK > vocab)
    throw refuse(`\`topK\` is ${topK}`, `give a whole number from 1 to ${vocab}, the size of the vocabulary`);
  if (hidden === true) throw refuse("`topK` was given with `hidden`", "give one of them");
}

/** Writes all logits of one prompt. */
async function writeAllLogits(
  model: ModelWithScales,
  ids: readonly number[],
  backend: Backend,
  options: LogitsOptions,
): Promise<void> {
  const { vocab } = model.dims;
  const inner = options.hidden === true ? innerTensors(model, ids.length) : [];
  const wanted = new Set(inner.map(({ name }) => name));
  const tensors: readonly TensorEntry[] = [
    { name: "input_ids", dtype: "I64", shape: [ids.length] },
    ...inner,
    { name: "logits", dtype: "F32", shape: [ids.length, vocab] },
  ];
  await writeTensorFile(options.out, tensors, METADATA, async (write) => {
    await write("input_ids", 0, bytesOfArray(BigInt64Array.from(ids, BigInt)));
    const keep = async (name: string, bytes: Uint8Array) => {
      if (wanted.has(name)) await write(name, 0, bytes);
    };
    await runForwardPass(model, ids, backend, options, {
      residual: (name, values) => keep(`hidden.${name}`, bytesOfArray(values)),
      experts: (layer, chosen) => keep(`experts.${layer}`, bytesOfArray(Int32Array.from(chosen))),
      logits: (block) => writeLogits(write, block, ids.length, vocab),
    });
  });
}

/** Writes the most probable ids of several prompts. */
async function writeTopLogits(
  model: ModelWithScales,
  prompts: readonly (readonly number[])[],
  k: number,
  backend: Backend,
  options: LogitsOptions,
): Promise<void> {
  const tensors = prompts.flatMap(({ length }, i): readonly TensorEntry[] => [
    { name: `input_ids.${i}`, dtype: "I64", shape: [length] },
    { name: `topk.ids.${i}`, dtype: "I32", shape: [length, k] },
    { name: `topk.logprobs.${i}`, dtype: "F32", shape: [length, k] },
    { name: `logsumexp.${i}`, dtype: "F32", shape: [length] },
  ]);
  await writeTensorFile(options.out, tensors, METADATA, async (write) => {
    await runTopLogits(model, prompts, k, backend, options, async (i, { ids, logprobs, logsumexp }) => {
      await write(`input_ids.${i}`, 0, bytesOfArray(BigInt64Array.from(prompts[i]!, BigInt)));
      await write(`topk.ids.${i}`, 0, bytesOfArray(ids));
      await write(`topk.logprobs.${i}`, 0, bytesOfArray(logprobs));
      await write(`logsumexp.${i}`, 0, bytesOfArray(logsumexp));
    });
  });
}

const METADATA = { format: "pt" };

/** Tensors that a pass writes beside the logits. */
function innerTensors({ layers, family, dims }: MatchedModel, tokens: number): readonly TensorEntry[] {
  const main = layers.filter(({ stack }) => stack === "main");
  const hiddenSize = family.forward.streams(dims).residual!;
  const hidden = [...Array(main.length + 1).keys(), "norm_f"].map((n) => ({
    name: `hidden.${n}`,
    dtype: "F32" as const,
    shape: [tokens, hiddenSize],
  }));
  const experts = main.flatMap(({ index, kind }) =>
    family.forward.block(kind, dims).flatMap((stage) =>
      stage.op === "kernel" && stage.choice !== undefined
        ? [
            {
              name: `experts.${index}`,
              dtype: "I32" as const,
              shape: [tokens, stage.choice(dims).perToken],
            },
          ]
        : [],
    ),
  );
  return [...hidden, ...experts];
}

async function writeLogits(
  write: WriteTensor,
  { lo, width, values }: LogitsBlock,
  tokens: number,
  vocab: number,
): Promise<void> {
  for (let t = 0; t < tokens; t++) {
    const row = values.subarray(t * width, (t + 1) * width);
    await write("logits", 4 * (t * vocab + lo), bytesOfArray(row));
  }
}
