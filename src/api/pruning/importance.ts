/** `importance`: scores layers and units of a model by forward passes, and writes the scores to a file for `prune`. */

import { digestContent, wholeTensors } from "../../certificate/content.ts";
import { checkChunks } from "../../checkpoint/chunk-checks.ts";
import { loadModelWithScales } from "../../checkpoint/load.ts";
import { openCheckpoint } from "../../checkpoint/open.ts";
import type { SourceOptions } from "../../checkpoint/options.ts";
import { refuseExistingFile } from "../../checkpoint/tensor-file.ts";
import { ignoreEvents } from "../../core/events.ts";
import { memoryOf } from "../../inference/machine.ts";
import { refuseUnrunnable } from "../../inference/model-runner.ts";
import { type PromptsOptions, promptsOf } from "../../inference/prompt-groups/prompt-file.ts";
import { promptsDigest } from "../../inference/prompts.ts";
import { type PluginsReport, pluginsReport } from "../../plugins/plugin.ts";
import { writeScores } from "../../pruning/scores/file.ts";
import type { LayerScore } from "../../pruning/scores/layer-scores.ts";
import { countingStore, ReadDigests } from "../../pruning/scores/read-digests.ts";
import { type ScoreOptions, scoreModel } from "../../pruning/scores/score.ts";
import type { Unavailable } from "../../pruning/scores/units.ts";
import { poolSize, WorkerPool } from "../../workers/pool.ts";

export interface ImportanceOptions extends ScoreOptions, SourceOptions, PromptsOptions {
  /** path of the safetensors file to write */
  readonly out: string;
  /** replace a file that exists */
  readonly overwrite?: boolean;
}

export interface ImportanceReport extends PluginsReport {
  readonly out: string;
  readonly source: {
    readonly address: string;
    readonly format: string;
    /** content root, which the file of scores has too */
    readonly root: string;
  };
  /** number of prompts */
  readonly prompts: number;
  /** of all prompts */
  readonly tokens: number;
  /** readings of the weights: more than one where the memory does not hold all prompts */
  readonly passes: number;
  readonly bytesRead: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
  readonly backend: string;
  readonly device: string;
  readonly layers: readonly LayerScore[];
  /** null with one prompt, and with `cheap` */
  readonly stability: {
    /** rank correlation of `mse` over the prompts 0, 2, 4 … with that over the prompts 1, 3, 5 …; null: not defined */
    readonly layers: number | null;
  } | null;
  /** scores that this model does not have, with the reason */
  readonly unavailable: readonly Unavailable[];
}

/**
 * Runs the model, and the model without each of its layers, over the prompts, with one reading of the weights where the memory
 * allows it. The file has scores of layers, of MLP channels, of Mamba heads, of query heads and of channels of the hidden state:
 * docs/pruning.md gives their formulas.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param options the file to write and the prompts
 * @returns the scores of layers, the number of readings, and whether the prompts suffice to rank layers
 * @throws DESTINATION_EXISTS, UNSUPPORTED, PLAN_MEMORY, NON_FINITE, and the errors of opening and matching a checkpoint; no file
 *   stays after an error
 * @example
 * await importance("./nemotron-h-8b", { out: "importance.safetensors", prompts: [[1, 2, 3], [4, 5, 6]] });
 */
export async function importance(source: string, options: ImportanceOptions): Promise<ImportanceReport> {
  const started = performance.now();
  const checkpoint = checkChunks(await openCheckpoint(source, options));
  let bytesRead = 0;
  const store = countingStore(checkpoint.store, (bytes) => {
    bytesRead += bytes;
  });
  const model = await loadModelWithScales({ ...checkpoint, store }, options);
  refuseUnrunnable(model);
  const prompts = (await promptsOf(options, checkpoint, model.dims.vocab)).map(({ ids }) => ids);
  await refuseExistingFile(options.out, options.overwrite);

  const restSize = poolSize(Math.min(memoryOf(options), REST_BYTES), options.threads);
  const digests = new ReadDigests(wholeTensors(model), model.tensors);
  const scores = await scoreModel(model, prompts, options, (...read) => digests.add(...read));
  const { watch = ignoreEvents, signal } = options;
  await using pool = new WorkerPool(restSize);
  watch({ type: "phase", phase: "bytes" });
  const { root } = await digestContent(
    model,
    pool,
    () => {},
    signal,
    (tensor) => digests.get(tensor),
  );
  await store.refuseChanged?.();

  const tokens = prompts.reduce((sum, { length }) => sum + length, 0);
  const record = { root, prompts: { count: prompts.length, tokens, sha256: promptsDigest(prompts) } };
  await writeScores(options.out, record, scores.layers, scores.units);
  const hasHalves = prompts.length > 1 && options.cheap !== true;
  return {
    out: options.out,
    source: { address: source, format: checkpoint.format, root },
    ...{ prompts: prompts.length, tokens, passes: scores.passes, bytesRead },
    seconds: (performance.now() - started) / 1000,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    ...{ backend: scores.backend, device: scores.device, layers: scores.layers },
    stability: hasHalves ? { layers: scores.stability } : null,
    unavailable: scores.unavailable,
    ...pluginsReport(options),
  };
}

/** Memory for the digests of what the passes do not read, such as the token table. */
const REST_BYTES = 64 * 1024 * 1024;
