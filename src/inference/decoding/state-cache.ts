/**
 * State of the tokens that a model has read. Attention layers cache keys and values for every token. Mamba layers cache
 * the last inputs of each convolution and the state of the scan, whose size does not depend on the number of tokens.
 */
import { copy } from "../../../kernels/index.ts";
import type { Backend, Region } from "../../../kernels/kernel.ts";
import type { Carry, KernelStage, Stage } from "../../families/forward.ts";
import type { Dims } from "../../families/structure.ts";

type Kind<K> = Extract<Carry, { keeps: K }>;

/** The cached state of all layers. */
export class StateCache {
  readonly #backend: Backend;
  readonly #widths: Readonly<Record<string, number>>;
  readonly #capacity: number;
  readonly #regions = new Map<string, Region>();
  /** tokens read so far */
  #seen = 0;

  /**
   * @param widths   elements per row of each stream
   * @param capacity largest number of tokens that will be read
   */
  constructor(backend: Backend, widths: Readonly<Record<string, number>>, capacity: number) {
    this.#backend = backend;
    this.#widths = widths;
    this.#capacity = capacity;
  }

  /** Wraps a stage so that it continues after the cached tokens; returns a stage that depends on no other token unchanged. */
  stage(stage: Stage, layer: number): Stage {
    if (stage.op !== "kernel") return stage;
    const { carry, table } = stage;
    if (table !== undefined)
      return { ...stage, table: (d, first, rows) => table(d, first + this.#seen, rows) };
    if (carry === undefined) return stage;
    const key = `${layer}.${stage.to}`;
    return {
      ...stage,
      run: (_, d, rows, inputs, output) =>
        carry.keeps === "rows"
          ? this.#runWithHistory(stage, carry, key, d, rows, inputs, output)
          : this.#runWithState(stage, carry, key, d, rows, inputs, output),
    };
  }

  /** Call after all layers have read `tokens` more tokens. */
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
      const cached = this.#region(`${key}.${name}`, (most ?? this.#capacity) * width);
      // A cache of all tokens appends new rows; a cache of the last few tokens is rewritten in a temporary buffer.
      const all = most === undefined ? cached : this.#backend.allocate(4 * (past + rows) * width);
      if (most !== undefined) await this.#copy(cached, 0, all, 0, past * width);
      await this.#copy(inputs[i]!, 0, all, past * width, rows * width);
      widened[i] = all;
    }
    // Run once at full length so that the scratch buffer is allocated at its final size and memory does not fragment.
    // Shaders on a GPU need no scratch buffer here.
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
    const outputCount = rows * this.#widths[stage.to]!;
    const state = this.#region(key, size);
    if (this.#seen === 0) await this.#backend.upload(state, 4 * size, (view) => void view.fill(0));
    const both = this.#backend.allocate(4 * (outputCount + size));
    await carry.run(this.#backend, d, rows, [state, ...inputs], both);
    await this.#copy(both, 0, output, 0, outputCount);
    await this.#copy(both, outputCount, state, 0, size);
    this.#backend.release(both);
  }

  /** The cache region of a key; the first call allocates `elements` F32. */
  #region(key: string, elements: number): Region {
    const known = this.#regions.get(key);
    if (known !== undefined) return known;
    const region = this.#backend.allocate(4 * elements);
    this.#regions.set(key, region);
    return region;
  }

  async #copy(x: Region, from: number, out: Region, at: number, count: number): Promise<void> {
    if (count > 0) await this.#backend.run(copy, { count, from, at }, [x], out);
  }
}
