/** One forward pass over one checkpoint. It passes hidden states and logits to callbacks as soon as they are computed. */
import type { Backend } from "../../kernels/kernel.ts";
import { decodeWeights, type ModelWithScales } from "../checkpoint/load.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { ignoreEvents } from "../core/events.ts";
import { Sources } from "../core/read.ts";
import { mainLayers } from "../families/model.ts";
import { stageStreams } from "./activations.ts";
import { runLayers } from "./layers.ts";
import { memoryOf } from "./machine.ts";
import { blockWords, partBytes } from "./memory.ts";
import { createRunner, runBytes } from "./model-runner.ts";
import { observeStage, type PassObserver } from "./observe.ts";
import { Rounder } from "./rounding.ts";
import type { Router } from "./router.ts";

/** Logits of the token ids [lo, lo + width) at every position: `values` is [T, width]. */
export interface LogitsBlock {
  readonly lo: number;
  readonly width: number;
  readonly values: Float32Array;
}

interface PassSinks {
  /** receives the streams that each matrix multiplies and those that a KV cache keeps */
  readonly observer?: PassObserver;
  /** hidden state [T, hidden]; name "0": after the embedding, "N": after layer N - 1, "norm_f": input of the head */
  residual?(name: string, values: Float32Array): void | Promise<void>;
  /** replaces the router's choice of experts in a layer; returns [T, chosen a token] */
  follow?(router: Router): Promise<Float32Array>;
  /** the experts that compute each token of a layer, [T, chosen a token] */
  experts?(layer: number, chosen: Float32Array): void | Promise<void>;
  /**
   * logits in blocks, in order of token ids; logits of the whole vocabulary are never in memory together. Absent: the
   * matrix of the head is not read
   */
  logits?(block: LogitsBlock): void | Promise<void>;
}

/**
 * Runs the main layers and the head of a model.
 *
 * @param ids   token ids, [T]
 * @param options.sequences lengths of sequences that follow each other in the ids and do not see each other; default: one
 * @param sinks callbacks that receive the results
 * @param phase name of the phase in progress events
 * @throws UNSUPPORTED where the model cannot run natively, TENSOR_MISSING, and read errors
 */
export async function runForwardPass(
  stored: ModelWithScales,
  ids: readonly number[],
  backend: Backend,
  options: RunOptions & { readonly sequences?: readonly number[] },
  sinks: PassSinks,
  phase: "calibrate" | "logits" = "logits",
): Promise<void> {
  const { watch = ignoreEvents, signal } = options;
  const bandBytes = partBytes(memoryOf(options));
  const model = decodeWeights(stored);
  const { family, dims } = model;
  await using sources = new Sources(model.checkpoint.store);
  const { logits, observer } = sinks;
  watch({ type: "phase", phase, totalBytes: runBytes(model, ["main"], logits !== undefined) });
  const runner = createRunner(model, {
    backend,
    sources,
    tokens: ids.length,
    sequences: options.sequences,
    roundings: new Map(),
    rounder: await Rounder.create(),
    bandBytes,
    advance: (bytes: number) => watch({ type: "advance", phase, bytes }),
    signal,
  });
  const { forward } = family;
  const layers = mainLayers(model);
  const run = { model, runner, backend, signal };
  const streams = await runLayers(run, ids, {
    follow: sinks.follow,
    experts: sinks.experts,
    async observe(stage, layer, view, experts) {
      const place = runner.layer(layer);
      if (observer !== undefined)
        await observeStage(observer, runner, { stage, place, layer, view, experts });
    },
    async residual(done, values) {
      await sinks.residual?.(String(done), await values());
      const layer = layers[done - 1];
      if (layer !== undefined)
        watch({ type: "layer", layer: layer.index, of: layers.length, kind: layer.kind });
    },
  });
  for (const stage of forward.head.slice(0, -1)) {
    streams.make(stageStreams(stage).makes);
    await runner.run(stage, runner.head, [streams.set()]);
  }
  const last = forward.head.at(-1)!;
  const from = stageStreams(last).reads[0]!;
  await sinks.residual?.("norm_f", await streams.view(from));
  if (observer !== undefined) {
    const [place, view] = [runner.head, (stream: string) => streams.view(stream)];
    await observeStage(observer, runner, { stage: last, place, layer: null, view, experts: [] });
  }
  if (logits !== undefined) {
    const vocab = dims.vocab;
    const width = Math.min(vocab, blockWords(bandBytes / 2, ids.length));
    const block = backend.allocate(4 * ids.length * width);
    for (let lo = 0; lo < vocab; lo += width) {
      const count = Math.min(width, vocab - lo);
      await runner.logits(from, lo, lo + count, [streams.set()], [block]);
      await logits({ lo, width: count, values: await backend.view(block, ids.length * count) });
    }
    backend.release(block);
  }
  streams.releaseAll();
  runner.close();
}
