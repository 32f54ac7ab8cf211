/** A model that reads tokens in steps and computes the logits after each step; a state cache holds earlier tokens. */

import { copy } from "../../../kernels/index.ts";
import type { Backend } from "../../../kernels/kernel.ts";
import type { ModelWithScales } from "../../checkpoint/load.ts";
import type { Sources } from "../../core/read.ts";
import { Streams, stageStreams } from "../activations.ts";
import { runLayers } from "../layers.ts";
import { createRunner } from "../model-runner.ts";
import type { ModelRunner } from "../runner.ts";
import type { WeightRounder } from "../weight-bands.ts";
import { StateCache } from "./state-cache.ts";

interface DecoderOptions {
  readonly model: ModelWithScales;
  readonly backend: Backend;
  readonly sources: Sources;
  readonly rounder: WeightRounder;
  /** bytes of weights read at a time */
  readonly bandBytes: number;
  /** largest number of tokens that will be read */
  readonly capacity: number;
  readonly signal: AbortSignal | undefined;
}

/** Reads tokens step by step. Call `close` at the end. */
export class Decoder {
  readonly #o: DecoderOptions;
  readonly #cache: StateCache;
  readonly #widths: Readonly<Record<string, number>>;

  constructor(options: DecoderOptions) {
    this.#o = options;
    const { family, dims } = options.model;
    this.#widths = family.forward.streams(dims);
    this.#cache = new StateCache(options.backend, this.#widths, options.capacity);
  }

  /**
   * Reads more tokens.
   *
   * @param ids the next token ids, at least one
   * @returns the logits after the last of these tokens, [vocab]
   */
  async read(ids: readonly number[]): Promise<Float32Array> {
    const { model, backend, signal } = this.#o;
    const hidden = this.#widths.residual!;
    const last = new Streams(backend, (name) => this.#widths[name]!);
    const runner = this.#createRunner(ids.length);
    const streams = await runLayers({ model, runner, backend, signal }, ids, {
      stage: (stage, layer) => this.#cache.stage(stage, layer.index),
    });
    last.make(["residual"]);
    const p = { count: hidden, from: (ids.length - 1) * hidden, at: 0 };
    await backend.run(copy, p, [streams.regions.get("residual")!], last.regions.get("residual")!);
    streams.releaseAll();
    runner.close();
    this.#cache.advance(ids.length);
    return this.#head(last);
  }

  close(): void {
    this.#cache.release();
  }

  async #head(streams: Streams): Promise<Float32Array> {
    const { model } = this.#o;
    const { forward } = model.family;
    const vocab = this.#widths.logits!;
    const runner = this.#createRunner(1);
    for (const stage of forward.head.slice(0, -1)) {
      streams.make(stageStreams(stage).makes);
      await runner.run(stage, runner.head, [streams.set()]);
    }
    streams.make(["logits"]);
    const from = stageStreams(forward.head.at(-1)!).reads[0]!;
    await runner.logits(from, 0, vocab, [streams.set()], [streams.regions.get("logits")!]);
    const logits = (await streams.view("logits")).slice();
    streams.releaseAll();
    runner.close();
    return logits;
  }

  /** A runner holds weight buffers until `close`, so each reading creates its own: between readings none is allocated. */
  #createRunner(tokens: number): ModelRunner {
    const { model, backend, sources, rounder, bandBytes, signal } = this.#o;
    return createRunner(model, {
      ...{ backend, sources, rounder, bandBytes, signal, tokens },
      roundings: new Map(),
      advance: () => {},
    });
  }
}
