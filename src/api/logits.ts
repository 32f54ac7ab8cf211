/** `logits`: runs one forward pass and writes the logits to a safetensors file, in blocks of the vocabulary. */

import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import { checkChunks } from "../checkpoint/chunk-checks.ts";
import { loadModelWithScales } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import type { RunOptions, SourceOptions } from "../checkpoint/options.ts";
import { bytesOf, type DType, type Shape } from "../core/dtype.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import type { MatchedModel } from "../families/model.ts";
import { type LogitsBlock, runForwardPass } from "../inference/forward-pass.ts";
import { backendFor } from "../inference/machine.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import { type PromptOptions, promptOf } from "../inference/prompts.ts";
import { pathExists } from "../io/stamps.ts";
import { type PluginsReport, pluginsReport } from "../plugins/plugin.ts";

export interface LogitsOptions extends RunOptions, SourceOptions, PromptOptions {
  /** path of the safetensors file to write */
  readonly out: string;
  /** also write the residual stream after each layer, and the experts that the router chose */
  readonly hidden?: boolean;
  /** replace a file that exists */
  readonly overwrite?: boolean;
}

export interface LogitsReport extends PluginsReport {
  readonly backend: string;
  readonly device: string;
  readonly tokens: number;
  readonly vocab: number;
  readonly seconds: number;
  readonly out: string;
}

/**
 * Runs one forward pass and writes `input_ids` [T] I64 and `logits` [T, vocab] F32. With `hidden`, the file also has the
 * residual stream, `hidden.0` (embedding) to `hidden.N` (after layer N - 1) and `hidden.norm_f`, each [T, hidden] F32,
 * and the experts that each token chose in layer L, `experts.L` [T, experts per token] I32, ascending.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param options the file to write and the prompt
 * @returns backend, number of tokens, size of the vocabulary, seconds and the path of the file
 * @throws DESTINATION_EXISTS, UNSUPPORTED, and the errors of opening and matching a checkpoint; no file stays after an error
 * @example
 * await logits("./nemotron-h-8b", { out: "logits.safetensors", prompt: "The capital of France is" });
 */
export async function logits(source: string, options: LogitsOptions): Promise<LogitsReport> {
  const started = performance.now();
  const checkpoint = checkChunks(await openCheckpoint(source, options));
  const model = await loadModelWithScales(checkpoint, options);
  refuseUnrunnable(model);
  const { vocab } = model.dims;
  const { ids } = await promptOf(options, checkpoint, vocab);
  if (options.overwrite !== true && (await pathExists(options.out))) {
    throw new IsologitError("DESTINATION_EXISTS", "the file exists already", { file: options.out });
  }
  await using backend = await backendFor(options);

  const inner = options.hidden === true ? innerTensors(model, ids.length) : [];
  const partial = `${options.out}.partial`;
  try {
    const out = await SafetensorsFile.create(partial, [
      { name: "input_ids", dtype: "I64", shape: [ids.length] },
      ...inner,
      { name: "logits", dtype: "F32", shape: [ids.length, vocab] },
    ]);
    try {
      await out.write("input_ids", 0, new Uint8Array(BigInt64Array.from(ids, BigInt).buffer));
      const wanted = new Set(inner.map(({ name }) => name));
      const keep = async (name: string, bytes: Uint8Array) => {
        if (wanted.has(name)) await out.write(name, 0, bytes);
      };
      await runForwardPass(model, ids, backend, options, {
        residual: (name, values) => keep(`hidden.${name}`, bytesOfF32(values)),
        experts: (layer, chosen) => keep(`experts.${layer}`, new Uint8Array(Int32Array.from(chosen).buffer)),
        logits: (block) => writeLogits(out, block, ids.length, vocab),
      });
    } finally {
      await out.close();
    }
    await rename(partial, options.out);
  } catch (error) {
    await rm(partial, { force: true });
    throw systemError(error, { file: options.out });
  }
  const seconds = (performance.now() - started) / 1000;
  return {
    backend: backend.id,
    device: backend.device,
    tokens: ids.length,
    vocab: vocab,
    seconds,
    out: options.out,
    ...pluginsReport(options),
  };
}

interface TensorEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

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
  out: SafetensorsFile,
  { lo, width, values }: LogitsBlock,
  tokens: number,
  vocab: number,
): Promise<void> {
  for (let t = 0; t < tokens; t++) {
    const row = values.subarray(t * width, (t + 1) * width);
    await out.write("logits", 4 * (t * vocab + lo), bytesOfF32(row));
  }
}

function bytesOfF32(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** A safetensors file whose tensors may be written in any order. */
class SafetensorsFile {
  readonly #file: FileHandle;
  readonly #offsets: ReadonlyMap<string, number>;

  private constructor(file: FileHandle, offsets: ReadonlyMap<string, number>) {
    this.#file = file;
    this.#offsets = offsets;
  }

  static async create(path: string, tensors: readonly TensorEntry[]): Promise<SafetensorsFile> {
    const header = encodeHeader(tensors, { format: "pt" });
    const offsets = new Map<string, number>();
    let end = header.byteLength;
    for (const { name, dtype, shape } of tensors) {
      offsets.set(name, end);
      end += bytesOf(dtype, shape);
    }
    const file = await open(path, "w");
    await file.write(header);
    await file.truncate(end);
    return new SafetensorsFile(file, offsets);
  }

  /** `at` is in bytes from the tensor's start. */
  async write(name: string, at: number, bytes: Uint8Array): Promise<void> {
    const offset = this.#offsets.get(name)! + at;
    for (let done = 0; done < bytes.byteLength; ) {
      done += (await this.#file.write(bytes, done, bytes.byteLength - done, offset + done)).bytesWritten;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
