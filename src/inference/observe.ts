/** Reports what enters each stored matrix during a forward pass, and what a KV cache would keep. */
import { tensorKey } from "../core/checkpoint.ts";
import type { Stage } from "../families/forward.ts";
import type { Layer } from "../families/structure.ts";
import type { ExpertRun } from "./expert-rows.ts";
import type { ModelRunner } from "./runner.ts";
import type { BlockNames } from "./tensor-lookup.ts";

/** The rows of one stream that some stored matrices multiply. */
export interface MatrixInput {
  /** null: the matrix of the head */
  readonly layer: Layer | null;
  /** the routed expert whose rows these are; null for a matrix that every token uses */
  readonly expert: number | null;
  /** keys of the stored tensors; a tensor of several experts is named for each of them */
  readonly tensors: readonly string[];
  /** [rows, width] */
  readonly values: Float32Array;
}

/** A stream that later tokens read again: a KV cache keeps its rows. */
interface CachedStream {
  readonly layer: Layer;
  readonly stream: string;
  /** [T, width] */
  readonly values: Float32Array;
}

/** Receives the streams of a pass. The arrays are valid only during the call. */
export interface PassObserver {
  input(input: MatrixInput): void;
  cached(cached: CachedStream): void;
}

/** A stage that is about to run. */
interface StageAt {
  readonly stage: Stage;
  readonly place: BlockNames;
  /** null: the head */
  readonly layer: Layer | null;
  /** reads one of the streams that the stage reads, [rows, width] */
  readonly view: (stream: string) => Promise<Float32Array>;
  /** which rows of a dispatched stream belong to which expert */
  readonly experts: readonly ExpertRun[];
}

/** Shows an observer the streams that a stage multiplies or keeps. */
export async function observeStage(
  observer: PassObserver,
  runner: ModelRunner,
  { stage, place, layer, view, experts }: StageAt,
): Promise<void> {
  const keysOf = (streams: readonly string[], expert?: number) =>
    runner.parts(place, streams, expert).map(({ tensor }) => tensorKey(tensor));
  if (stage.op === "linear") {
    observer.input({ layer, expert: null, tensors: keysOf(stage.to), values: await view(stage.from) });
  } else if (stage.op === "experts") {
    const values = await view(stage.from);
    const width = values.length / experts.reduce((rows, { count }) => rows + count, 0);
    for (const { expert, from, count } of experts) {
      const rows = values.subarray(from * width, (from + count) * width);
      observer.input({ layer, expert, tensors: keysOf([stage.to], expert), values: rows });
    }
  } else if (stage.op === "kernel" && stage.carry?.keeps === "rows" && stage.carry.most === undefined) {
    // A stage that needs only its last few rows, such as a convolution, has a small cache of its own.
    for (const stream of stage.carry.of)
      observer.cached({ layer: layer!, stream, values: await view(stream) });
  }
}
