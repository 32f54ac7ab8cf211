/** A model that reads tokens a few at a time and says what follows, each time from where it stopped. */

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

export interface DecoderOptions {
  readonly model: ModelWithScales;
  readonly backend: Backend;
  readonly sources: Sources;
  readonly rounder: WeightRounder;
  /** bytes of weights read at a time */
  readonly bandBytes: number;
  /** tokens that will be read at most */
  readonly capacity: number;
  readonly signal: AbortSignal | undefined;
}

export class Decoder {
  readonly #o: DecoderOptions;
  readonly #kept: StateCache;
  readonly #widths: Readonly<Record<string, number>>;

  constructor(options: DecoderOptions) {
    this.#o = options;
    const { family, dims } = options.model;
    this.#widths = family.forward.streams(dims);
    this.#kept = new StateCache(options.backend, this.#widths, options.capacity);
  }

  /**
   * Reads more tokens.
   *
   * @returns the logits of what follows the last of them, [vocab]
   */
  async read(ids: readonly number[]): Promise<Float32Array> {
    const { model, backend, signal } = this.#o;
    const hidden = this.#widths.residual!;
    const last = new Streams(backend, (name) => this.#widths[name]!);
    const side = this.#side(ids.length);
    const streams = await runLayers({ model, side, backend, signal }, ids, {
      stage: (stage, layer) => this.#kept.stage(stage, layer.index),
    });
    last.make(["residual"]);
    const p = { count: hidden, from: (ids.length - 1) * hidden, at: 0 };
    await backend.run(copy, p, [streams.regions.get("residual")!], last.regions.get("residual")!);
    streams.releaseAll();
    side.close();
    this.#kept.advance(ids.length);
    return this.#head(last);
  }

  close(): void {
    this.#kept.release();
  }

  async #head(streams: Streams): Promise<Float32Array> {
    const { model } = this.#o;
    const { forward } = model.family;
    const vocab = this.#widths.logits!;
    const side = this.#side(1);
    for (const stage of forward.head.slice(0, -1)) {
      streams.make(stageStreams(stage).makes);
      await side.run(stage, side.head, [streams.set()]);
    }
    streams.make(["logits"]);
    const from = stageStreams(forward.head.at(-1)!).reads[0]!;
    await side.logits(from, 0, vocab, [streams.set()], [streams.regions.get("logits")!]);
    const logits = (await streams.view("logits")).slice();
    streams.releaseAll();
    side.close();
    return logits;
  }

  /** Buffers of weights live as long as a side does: none is open between two readings. */
  #side(tokens: number): ModelRunner {
    const { model, backend, sources, rounder, bandBytes, signal } = this.#o;
    return createRunner(model, {
      ...{ backend, sources, rounder, bandBytes, signal, tokens },
      roundings: new Map(),
      advance: () => {},
    });
  }
}
