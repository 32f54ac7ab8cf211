/** The streams (activations) of one run through a model: allocated when a stage makes them, released after their last use. */
import { add } from "../../kernels/index.ts";
import type { Backend, Region } from "../../kernels/kernel.ts";
import type { Stage } from "../families/forward.ts";
import type { StreamSet } from "./products/multiplier.ts";
import { putFloats } from "./sequences.ts";

/** Names of the streams that a stage reads and of the streams that it makes. */
export function stageStreams(stage: Stage): {
  readonly reads: readonly string[];
  readonly makes: readonly string[];
} {
  switch (stage.op) {
    case "linear":
      return { reads: [stage.from], makes: stage.to };
    case "dispatch":
    case "experts":
      return { reads: [stage.from], makes: [stage.to] };
    case "combine":
      return { reads: [stage.from, stage.weights], makes: [stage.to] };
    case "kernel":
    case "concat":
      return { reads: stage.from, makes: [stage.to] };
    default:
      return stage satisfies never;
  }
}

export class Streams {
  readonly #backend: Backend;
  readonly #lengthOf: (name: string) => number;
  readonly regions = new Map<string, Region>();

  /** @param lengthOf number of elements of a stream: rows times width */
  constructor(backend: Backend, lengthOf: (name: string) => number) {
    this.#backend = backend;
    this.#lengthOf = lengthOf;
  }

  /** Allocates streams of shape [rows, width], F32. */
  make(names: readonly string[]): void {
    for (const name of names) this.regions.set(name, this.#backend.allocate(4 * this.#lengthOf(name)));
  }

  /** These streams as outputs of a stage, and as its inputs unless `inputs` names other streams. */
  set(weights: StreamSet["weights"] = "stored", inputs: Streams = this): StreamSet {
    return { inputs: inputs.regions, outputs: this.regions, weights };
  }

  view(name: string): Promise<Float32Array> {
    return this.#backend.view(this.regions.get(name)!, this.#lengthOf(name));
  }

  /** Replaces the values of a stream. */
  async put(name: string, values: Float32Array): Promise<void> {
    await putFloats(this.#backend, this.regions.get(name)!, values);
  }

  /** residual += out; then releases `out`. */
  async addResidual(): Promise<void> {
    const [residual, out] = [this.regions.get("residual")!, this.regions.get("out")!];
    await this.#backend.run(add, { count: this.#lengthOf("residual") }, [residual, out], residual);
    this.release("out");
  }

  /** Makes `out` the residual stream and releases the earlier one. */
  replaceResidual(): void {
    this.release("residual");
    this.regions.set("residual", this.regions.get("out")!);
    this.regions.delete("out");
  }

  /** Releases the streams that no stage after `stages[done]` reads. */
  releaseUnused(stages: readonly Stage[], done: number): void {
    const later = new Set([
      "residual",
      "out",
      ...stages.slice(done + 1).flatMap((stage) => stageStreams(stage).reads),
    ]);
    for (const name of [...this.regions.keys()]) if (!later.has(name)) this.release(name);
  }

  release(name: string): void {
    const region = this.regions.get(name);
    if (region !== undefined) this.#backend.release(region);
    this.regions.delete(name);
  }

  releaseAll(): void {
    for (const name of [...this.regions.keys()]) this.release(name);
  }
}
