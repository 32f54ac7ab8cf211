/** The streams of the runs that advance together; lockstep.ts says what each run is. */
import { roundToBf16 } from "../core/float.ts";
import type { Stage } from "../families/forward.ts";
import type { Streams } from "../inference/activations.ts";
import type { StreamSet } from "../inference/products/multiplier.ts";

export class LockstepRuns {
  readonly source: Streams;
  readonly recastSource: Streams;
  readonly destination: Streams;
  /** has no residual stream: it borrows its inputs */
  readonly destinationOnSourceInputs: Streams;
  readonly #noise: Streams | undefined;
  /** the runs with a residual stream of their own */
  readonly all: readonly Streams[];

  /** @param recast some weights of the destination have another dtype than in the source */
  constructor(recast: boolean, streams: () => Streams) {
    this.source = streams();
    this.destination = streams();
    this.destinationOnSourceInputs = streams();
    this.recastSource = recast ? streams() : this.source;
    this.#noise = recast ? streams() : undefined;
    this.all = [
      this.source,
      this.destination,
      ...(this.#noise === undefined ? [] : [this.recastSource, this.#noise]),
    ];
  }

  /** What the source's runner computes. */
  ofSource(): readonly StreamSet[] {
    if (this.#noise === undefined) return [this.source.set()];
    return [this.source.set(), this.recastSource.set("recast"), this.#noise.set()];
  }

  /** What the destination's runner computes. @param ownInputs its own inputs have the bits of `recastSource` */
  ofDestination(ownInputs: boolean): readonly StreamSet[] {
    return [
      this.destination.set(),
      ...(ownInputs ? [] : [this.destinationOnSourceInputs.set("stored", this.recastSource)]),
    ];
  }

  make(names: readonly string[]): void {
    for (const run of this.all) run.make(names);
  }

  release(name: string): void {
    for (const run of this.all) run.release(name);
  }

  releaseUnused(stages: readonly Stage[], done: number): void {
    for (const run of this.all) run.releaseUnused(stages, done);
  }

  releaseAll(): void {
    for (const run of this.all) run.releaseAll();
  }

  async addResidual(): Promise<void> {
    for (const run of this.all) await run.addResidual();
    // a run in BF16 would round the residual stream in this way
    await this.#noise?.put("residual", roundToBf16(await this.#noise.view("residual")));
  }

  replaceResidual(): void {
    for (const run of this.all) run.replaceResidual();
  }

  /** The residual stream of each run, [T, hidden]. */
  async residuals(): Promise<readonly Float32Array[]> {
    const residuals: Float32Array[] = [];
    for (const run of this.all) residuals.push(Float32Array.from(await run.view("residual")));
    return residuals;
  }

  /** Gives each run its residual stream. */
  async putResiduals(residuals: readonly Float32Array[]): Promise<void> {
    this.make(["residual"]);
    for (const [i, run] of this.all.entries()) await run.put("residual", residuals[i]!); // one for each run
  }
}
