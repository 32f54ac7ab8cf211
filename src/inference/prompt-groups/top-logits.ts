/** The most probable next tokens at each position, and the log of the sum of all exponentials: what a teacher's logits say to a student. */
import { createMeter } from "../../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../../kernels/backend/wasm.ts";
import type { Backend } from "../../../kernels/kernel.ts";
import type { ModelWithScales } from "../../checkpoint/load.ts";
import type { RunOptions } from "../../checkpoint/options.ts";
import { IsologitError } from "../../core/errors.ts";
import { ignoreEvents } from "../../core/events.ts";
import { type LogitsBlock, runForwardPass } from "../forward-pass.ts";
import { memoryOf, threadsOf } from "../machine.ts";
import { groupPrompts } from "./groups.ts";

/** What is kept of the logits of one prompt. */
interface TopLogits {
  /** [T, k] token ids, the most probable first; of equal logits the lower id is first */
  readonly ids: Int32Array;
  /** [T, k] log of the probability among all ids of the vocabulary, descending */
  readonly logprobs: Float32Array;
  /** [T] log of the sum of exp(logit) over the vocabulary */
  readonly logsumexp: Float32Array;
}

/**
 * Runs every prompt from an empty state, as many in one reading of the weights as the memory holds.
 *
 * @param take receives the result of each prompt, in order
 * @returns the number of readings
 * @throws PLAN_MEMORY where one prompt needs more than the memory allows, and read errors
 */
export async function runTopLogits(
  model: ModelWithScales,
  prompts: readonly (readonly number[])[],
  k: number,
  backend: Backend,
  options: RunOptions,
  take: (prompt: number, top: TopLogits) => Promise<void>,
): Promise<number> {
  const groups = await groupsWithin(model, prompts, options);
  for (const { first, count } of groups) {
    const group = prompts.slice(first, first + count);
    const ids = group.flat();
    const sequences = group.map(({ length }) => length);
    const table = new TopTable(ids.length, k);
    await runForwardPass(
      model,
      ids,
      backend,
      { ...options, sequences },
      { logits: (block) => table.add(block) },
    );
    let from = 0;
    for (const [i, length] of sequences.entries()) {
      await take(first + i, table.rows(from, from + length));
      from += length;
    }
  }
  return groups.length;
}

/** Groups of prompts, each measured by a pass that only counts memory. */
async function groupsWithin(
  model: ModelWithScales,
  prompts: readonly (readonly number[])[],
  options: RunOptions,
) {
  const allowed = Math.min(memoryOf(options), ADDRESSABLE_BYTES);
  const known = new Map<string, number>();
  const bytesOf = async (group: readonly (readonly number[])[]) => {
    const sequences = group.map(({ length }) => length);
    const key = sequences.join();
    const meter = createMeter(threadsOf(options));
    if (!known.has(key)) {
      const counted = { ...options, sequences, watch: ignoreEvents };
      await runForwardPass(model, group.flat(), meter, counted, { logits: () => {} });
      known.set(key, meter.peakBytes);
    }
    return known.get(key)!;
  };
  const groups = await groupPrompts(
    prompts.length,
    async (first, count) => (await bytesOf(prompts.slice(first, first + count))) <= allowed,
  );
  const none = groups.find(({ count }) => count === 0);
  if (none === undefined) return groups;
  const prompt = prompts[none.first]!;
  const message = `prompt ${none.first} with ${prompt.length} tokens needs ${await bytesOf([prompt])} bytes of buffers; ${allowed} are allowed`;
  const next = "give shorter prompts, or allow more `memoryBytes`";
  throw new IsologitError("PLAN_MEMORY", message, {}, { next });
}

/** The largest logits of each position so far. Ids are added one at a time, so the size of blocks changes no bit. */
class TopTable {
  readonly #k: number;
  readonly #ids: Int32Array;
  /** [T, k] descending */
  readonly #logits: Float32Array;
  /** [T] sum of exp(logit - the largest logit) */
  readonly #sums: Float64Array;

  constructor(tokens: number, k: number) {
    this.#k = k;
    this.#ids = new Int32Array(tokens * k).fill(-1);
    this.#logits = new Float32Array(tokens * k).fill(-Infinity);
    this.#sums = new Float64Array(tokens);
  }

  add({ lo, width, values }: LogitsBlock): void {
    const k = this.#k;
    for (let t = 0; t < this.#sums.length; t++) {
      let [top, sum] = [this.#logits[t * k]!, this.#sums[t]!];
      for (let i = 0; i < width; i++) {
        const logit = values[t * width + i]!;
        if (logit > top) {
          sum *= Math.exp(top - logit);
          top = logit;
        }
        sum += Math.exp(logit - top);
        if (logit > this.#logits[(t + 1) * k - 1]!) this.#insert(t, lo + i, logit);
      }
      this.#sums[t] = sum;
    }
  }

  /** Puts a logit behind those that are as large. */
  #insert(t: number, id: number, logit: number): void {
    let at = (t + 1) * this.#k - 1;
    for (; at > t * this.#k && this.#logits[at - 1]! < logit; at--) {
      this.#logits[at] = this.#logits[at - 1]!;
      this.#ids[at] = this.#ids[at - 1]!;
    }
    this.#logits[at] = logit;
    this.#ids[at] = id;
  }

  /** The results of positions [from, to). */
  rows(from: number, to: number): TopLogits {
    const k = this.#k;
    const sums = Array.from({ length: to - from }, (_, t) => {
      return this.#logits[(from + t) * k]! + Math.log(this.#sums[from + t]!);
    });
    return {
      ids: this.#ids.slice(from * k, to * k),
      logprobs: this.#logits.slice(from * k, to * k).map((logit, i) => logit - sums[Math.floor(i / k)]!),
      logsumexp: Float32Array.from(sums),
    };
  }
}
