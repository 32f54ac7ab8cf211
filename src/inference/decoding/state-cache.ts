/**
 * What a model keeps of the tokens it has read: keys and values of attention layers, which grow with every token, and
 * for Mamba layers the last inputs of each convolution and the state of the scan, which do not.
 */
import { copy } from "../../../kernels/index.ts";
import type { Backend, Region } from "../../../kernels/kernel.ts";
import type { Carry, KernelStage, Stage } from "../../families/forward.ts";
import type { Dims } from "../../families/structure.ts";

type Kind<K> = Extract<Carry, { keeps: K }>;

export class StateCache {
  readonly #backend: Backend;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #capacity: number;
  readonly #regions = new Map<string, Region>();
  /** tokens read so far */
  #seen = 0;

  /**
   * @param widths   elements a row of each stream
   * @param capacity tokens that there will be at most
   */
  constructor(backend: Backend, widths: Readonly<Record<string, number>>, capacity: number) {
    this.#backend = backend;
    this.#widths = widths;
    this.#capacity = capacity;
  }

  /** A stage of a layer as it goes on from the tokens read so far; one that keeps nothing is itself. */
  stage(stage: Stage, layer: number): Stage {
    if (stage.op !== "kernel" || stage.carry === undefined) return stage;
    const { carry } = stage;
    const key = `${layer}.${stage.to}`;
    return {
      ...stage,
      run: (_, d, rows, inputs, output) =>
        carry.keeps === "rows"
          ? this.#runWithHistory(stage, carry, key, d, rows, inputs, output)
          : this.#runWithState(stage, carry, key, d, rows, inputs, output),
    };
  }

  /** All layers have read so many tokens more. */
  advance(tokens: number): void {
    this.#seen += tokens;
  }

  release(): void {
    for (const region of this.#regions.values()) this.#backend.release(region);
    this.#regions.clear();
  }

  async #runWithHistory(
    stage: KernelStage,
    carry: Kind<"rows">,
    key: string,
    d: Dims,
    rows: number,
    inputs: readonly Region[],
    output: Region,
  ): Promise<void> {
    const most = carry.most?.(d);
    const past = Math.min(this.#seen, most ?? this.#seen);
    const widened = [...inputs];
    for (const name of carry.of) {
      const i = stage.from.indexOf(name);
      const width = this.#widths[name]!;
      const kept = this.#region(`${key}.${name}`, (most ?? this.#capacity) * width);
      // All rows ever read stay where they are; the last few move up as others come.
      const all = most === undefined ? kept : this.#backend.allocate(4 * (past + rows) * width);
      if (most !== undefined) await this.#copy(kept, 0, all, 0, past * width);
      await this.#copy(inputs[i]!, 0, all, past * width, rows * width);
      widened[i] = all;
    }
    // Once as if it were the last: the scratch that it takes grows with what it looks back on, and would scatter. A GPU's
    // shaders take none for it.
    if (this.#seen === 0 && most === undefined && this.#backend.id === "wasm")
      await carry.run(this.#backend, d, rows, this.#capacity - rows, widened, output);
    await carry.run(this.#backend, d, rows, past, widened, output);
    if (most === undefined) return;
    for (const name of carry.of) {
      const all = widened[stage.from.indexOf(name)]!;
      const width = this.#widths[name]!;
      const next = Math.min(most, past + rows);
      await this.#copy(all, (past + rows - next) * width, this.#region(`${key}.${name}`, 0), 0, next * width);
      this.#backend.release(all);
    }
  }

  async #runWithState(
    stage: KernelStage,
    carry: Kind<"state">,
    key: string,
    d: Dims,
    rows: number,
    inputs: readonly Region[],
    output: Region,
  ): Promise<void> {
    const size = carry.elements(d);
    const own = rows * this.#widths[stage.to]!;
    const state = this.#region(key, size);
    if (this.#seen === 0) await this.#backend.upload(state, 4 * size, (view) => void view.fill(0));
    const both = this.#backend.allocate(4 * (own + size));
    await carry.run(this.#backend, d, rows, [state, ...inputs], both);
    await this.#copy(both, 0, output, 0, own);
    await this.#copy(both, own, state, 0, size);
    this.#backend.release(both);
  }

  /** What is kept under a key, `elements` of it when first asked for. */
  #region(key: string, elements: number): Region {
    const known = this.#regions.get(key);
    if (known !== undefined) return known;
    const made = this.#backend.allocate(4 * elements);
    this.#regions.set(key, made);
    return made;
  }

  async #copy(x: Region, from: number, out: Region, at: number, count: number): Promise<void> {
    if (count > 0) await this.#backend.run(copy, { count, from, at }, [x], out);
  }
}

/** Bytes kept for each token, and bytes kept however many there are. */
export function stateCacheBytes(
  blocks: readonly (readonly Stage[])[],
  widths: Readonly<Record<string, number>>,
  d: Dims,
): { readonly perToken: number; readonly fixed: number } {
  let [perToken, fixed] = [0, 0];
  for (const stage of blocks.flat()) {
    if (stage.op !== "kernel" || stage.carry === undefined) continue;
    const { carry } = stage;
    if (carry.keeps === "state") fixed += 4 * carry.elements(d);
    else {
      const row = carry.of.reduce((sum, name) => sum + 4 * widths[name]!, 0);
      if (carry.most === undefined) perToken += row;
      else fixed += carry.most(d) * row;
    }
  }
  return { perToken, fixed };
}
