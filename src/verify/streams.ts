/** The streams of one run through a model: what its stages read and make, allocated and let go as they pass. */
import { add } from "../../kernels/add.ts";
import type { Backend, Region } from "../../kernels/define.ts";
import type { Dims, Stage } from "../families/define.ts";
import type { Place, StreamSet } from "./side.ts";

/** The streams a stage reads, and those it makes. */
export function ends(stage: Stage): { readonly reads: readonly string[]; readonly makes: readonly string[] } {
  return stage.op === "linear"
    ? { reads: [stage.from], makes: stage.to }
    : { reads: stage.from, makes: [stage.to] };
}

/** The stored tensors that a stage draws on to make a stream. */
export function makersOf(stage: Stage, stream: string, { prefix, uses }: Place, d: Dims): readonly string[] {
  const wanted = stage.op === "linear" ? [stream] : stage.parameters;
  const makers = uses.filter((use) => use.feeds(d).some(({ to }) => wanted.includes(to)));
  return makers.map(({ name }) => prefix + name);
}

export class Streams {
  readonly #backend: Backend;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #tokens: number;
  readonly regions = new Map<string, Region>();

  constructor(backend: Backend, widths: Readonly<Record<string, number>>, tokens: number) {
    this.#backend = backend;
    this.#widths = widths;
    this.#tokens = tokens;
  }

  /** Room for streams of [tokens, width] F32. */
  make(names: readonly string[]): void {
    for (const name of names)
      this.regions.set(name, this.#backend.allocate(4 * this.#tokens * this.#widths[name]!));
  }

  /** As the inputs and outputs of a side's stages. */
  set(weights: StreamSet["weights"] = "stored", inputs: Streams = this): StreamSet {
    return { inputs: inputs.regions, outputs: this.regions, weights };
  }

  view(name: string): Promise<Float32Array> {
    return this.#backend.view(this.regions.get(name)!, this.#tokens * this.#widths[name]!);
  }

  /** residual += out, which then goes. */
  async addResidual(): Promise<void> {
    const [residual, out] = [this.regions.get("residual")!, this.regions.get("out")!];
    await this.#backend.run(add, { count: this.#tokens * this.#widths.residual! }, [residual, out], residual);
    this.release("out");
  }

  /** Lets go what no stage after `stages[done]` reads. */
  releaseUnused(stages: readonly Stage[], done: number): void {
    const later = new Set([
      "residual",
      "out",
      ...stages.slice(done + 1).flatMap((stage) => ends(stage).reads),
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
