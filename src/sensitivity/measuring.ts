/** Runs the variants of a search in as few readings of the weights as the memory allows. */
import { createMeter } from "../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../kernels/backend/wasm.ts";
import type { ModelWithScales } from "../checkpoint/load.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents } from "../core/events.ts";
import { backendFor, memoryOf, threadsOf } from "../inference/machine.ts";
import { blockWords, partBytes } from "../inference/memory.ts";
import { runBytes } from "../inference/model-runner.ts";
import type { Prompt } from "../inference/prompts.ts";
import { ROUNDER_BYTES, Rounder } from "../inference/rounding.ts";
import type { LogitsSummary } from "../verify/metrics.ts";
import { compareVariants, type Variant, type VariantsRequest } from "./variants.ts";

export class Measuring implements AsyncDisposable {
  readings = 0;
  readonly #source: ModelWithScales;
  readonly #request: VariantsRequest;
  readonly #options: RunOptions;
  readonly #sources: readonly AsyncDisposable[];

  private constructor(
    source: ModelWithScales,
    request: VariantsRequest,
    options: RunOptions,
    sources: readonly AsyncDisposable[],
  ) {
    this.#source = source;
    this.#request = request;
    this.#options = options;
    this.#sources = sources;
  }

  /**
   * @param rounded what the variants round
   * @param sources what it reads; closed at the end
   */
  static async open(
    source: ModelWithScales,
    { roundings, units }: Pick<VariantsRequest, "roundings" | "units">,
    sources: readonly AsyncDisposable[],
    { ids, textTokens }: Prompt,
    options: RunOptions,
  ): Promise<Measuring> {
    const memoryBytes = memoryOf(options);
    const { watch = ignoreEvents, signal } = options;
    const backend = await backendFor({ ...options, memoryBytes: memoryBytes - ROUNDER_BYTES });
    const rounder = await Rounder.create();
    const request = { backend, ids, textTokens, roundings, units, rounder, memoryBytes, watch, signal };
    return new Measuring(source, request, options, sources);
  }

  get backend(): string {
    return this.#request.backend.id;
  }

  get device(): string {
    return this.#request.backend.device;
  }

  /** Compares variants with the model. Each group of as many variants as fit into the memory reads the weights once. */
  async run(variants: readonly Variant[]): Promise<readonly LogitsSummary[]> {
    const groups = await this.#groups(variants);
    const totalBytes = groups.length * runBytes(this.#source, ["main"]);
    this.#request.watch?.({ type: "phase", phase: "sensitivity", totalBytes });
    const summaries: LogitsSummary[] = [];
    for (const group of groups)
      summaries.push(...(await compareVariants(this.#source, group, this.#request)));
    this.readings += groups.length;
    return summaries;
  }

  /** Divides variants into the fewest groups of about equal size. @throws PLAN_MEMORY if the memory is too small for one */
  async #groups(variants: readonly Variant[]): Promise<readonly (readonly Variant[])[]> {
    const allowed = Math.min(this.#request.memoryBytes, ADDRESSABLE_BYTES);
    let needed = Infinity;
    for (let count = 1; count <= variants.length; count++) {
      const size = Math.ceil(variants.length / count);
      if (count > 1 && size === Math.ceil(variants.length / (count - 1))) continue;
      const groups = Array.from({ length: Math.ceil(variants.length / size) }, (_, i) =>
        variants.slice(i * size, (i + 1) * size),
      );
      const sizes = await Promise.all(groups.map((group) => this.#neededBytes(group)));
      needed = Math.max(...sizes);
      if (needed <= allowed) return groups;
    }
    const message = `${allowed} bytes of buffers are allowed; the search for a recipe needs ${needed}`;
    throw new IsologitError(
      "PLAN_MEMORY",
      message,
      {},
      { next: "give fewer `tokens`, or more `memoryBytes`" },
    );
  }

  /** Peak bytes of buffers, measured by a run that only counts memory. */
  async #neededBytes(variants: readonly Variant[]): Promise<number> {
    const meter = createMeter(threadsOf(this.#options));
    const { ids, memoryBytes } = this.#request;
    const words = Math.min(
      this.#source.dims.vocab,
      blockWords(partBytes(memoryBytes) / 2, ids.length), // a block has no more token ids than this
    );
    await compareVariants(this.#source, variants, {
      ...this.#request,
      ...{ backend: meter, words, rounder: { round() {} }, watch: ignoreEvents },
    });
    return meter.peakBytes + ROUNDER_BYTES;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const sources of this.#sources) await sources[Symbol.asyncDispose]();
    await this.#request.backend[Symbol.asyncDispose]();
  }
}
