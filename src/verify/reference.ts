/**
 * The reference rung: compares logits that other software recorded with logits of our forward pass. It tests the kernels:
 * every other rung uses the same kernels on both sides.
 */

import type { ModelWithScales } from "../checkpoint/load.ts";
import { Distance, relL2 } from "../core/distance.ts";
import type { Layer } from "../families/structure.ts";
import { runForwardPass } from "../inference/forward-pass.ts";
import { backendFor } from "../inference/machine.ts";
import { LogitsComparison } from "./metrics.ts";
import type { CompareOptions } from "./options.ts";
import { NO_WORD, openRecording, type RecordedLogits } from "./recording.ts";
import type { ReferenceMetrics, RungReport, Verdict } from "./report.ts";

export interface ReferenceRung {
  readonly rung: RungReport;
  readonly backend: string;
  readonly device: string;
  /** first layer whose hidden state differs from the recorded one; -1 the embedding; null: none differs or none was recorded */
  readonly firstLayer: number | null;
}

/**
 * Limits for logits recorded in F32 and in BF16. F32: correct arithmetic in another order gives about 1e-6 relative L2; the
 * smallest known mistake (another epsilon) gives 1.3e-4. BF16: the noise of BF16 alone is 0.01 to 0.02 relative L2 and
 * 0.0006 to 0.0014 nats.
 */
const REFERENCE_LIMITS = {
  float32: { relL2: 2e-5, klMean: 1e-6 },
  bfloat16: { relL2: 0.03, klMean: 0.005 },
} as const;

interface PromptResult {
  readonly relL2: number;
  readonly klMean: number;
  readonly maxAbs: number;
  readonly top1: number;
  readonly nll: number | null;
  readonly firstLayer: number | null;
}

/** Compares the model with every recorded prompt. @throws USAGE for a file that is not a recording for this model */
export async function referenceRung(
  model: ModelWithScales,
  file: string,
  options: CompareOptions,
): Promise<ReferenceRung> {
  await using recording = await openRecording(file, model.dims.vocab);
  await using backend = await backendFor(options);
  const results: (PromptResult & { readonly exact: boolean; readonly ok: boolean })[] = [];
  for (const recorded of recording.prompts) {
    const { exact } = recorded;
    const result = await compare(model, recorded, (sinks) =>
      runForwardPass(model, recorded.ids, backend, options, sinks),
    );
    const limits = REFERENCE_LIMITS[exact ? "float32" : "bfloat16"];
    const ok = result.relL2 <= limits.relL2 && result.klMean <= limits.klMean;
    results.push({ ...result, exact, ok });
  }
  const largest = (measure: (result: PromptResult) => number) =>
    results.map(measure).reduce((a, b) => (a >= b || Number.isNaN(a) ? a : b));
  const exact = results.every((result) => result.exact);
  const verdict: Verdict = !results.every(({ ok }) => ok) ? "different" : exact ? "same" : "within";
  const layers = results.flatMap(({ ok, firstLayer }) => (ok || firstLayer === null ? [] : [firstLayer]));
  const losses = results.flatMap(({ nll }) => nll ?? []);
  const metrics: ReferenceMetrics = {
    prompts: results.length,
    tokens: recording.prompts.reduce((sum, { ids }) => sum + ids.length, 0),
    arithmetic: exact ? "float32" : "bfloat16",
    maxAbs: largest(({ maxAbs }) => maxAbs),
    relL2: largest((result) => result.relL2),
    klMean: largest(({ klMean }) => klMean),
    top1: -largest(({ top1 }) => -top1),
    ...(losses.length > 0 && { nllA: Math.max(...losses) }),
  };
  const firstLayer = layers.length === 0 ? null : Math.min(...layers);
  return {
    rung: { rung: "reference", verdict, metrics },
    backend: backend.id,
    device: backend.device,
    firstLayer,
  };
}

async function compare(
  model: ModelWithScales,
  recorded: RecordedLogits,
  run: (sinks: Parameters<typeof runForwardPass>[4]) => Promise<void>,
): Promise<PromptResult> {
  const main = model.layers.filter(({ stack }) => stack === "main");
  const layers = main.length;
  const nameOf = await hiddenNames(recorded, main);
  const limit = REFERENCE_LIMITS[recorded.exact ? "float32" : "bfloat16"].relL2;
  let firstLayer: number | null = null;
  const residual = async (name: string, values: Float32Array) => {
    const spelling = nameOf(name);
    const expected = firstLayer === null && spelling !== null ? await recorded.hidden(spelling) : null;
    if (expected === null || relL2(expected, values) <= limit) return;
    firstLayer = name === "norm_f" ? layers : Number(name) - 1;
  };
  const { answer, ids } = recorded;
  if (answer.kind === "logits") {
    const comparison = new LogitsComparison(ids);
    await run({
      residual,
      logits: async ({ lo, width, values }) => {
        comparison.add(lo, width, await answer.block(lo, lo + width), values);
      },
    });
    const { relL2: distance, klMean, maxAbs, top1, nllA } = comparison.summary(0);
    return { relL2: distance, klMean, maxAbs, top1, nll: ids.length > 1 ? nllA : null, firstLayer };
  }
  const logprobs = new ChosenLogprobs(ids.length, answer.words, answer.k);
  await run({ residual, logits: ({ lo, width, values }) => logprobs.add(lo, width, values) });
  return { ...logprobs.compareWith(answer.values), nll: null, firstLayer };
}

/**
 * How a recording names our hidden states. Other software counts blocks of attention and MLP, so that it records the stream
 * after every second of our layers; a recording of our own has the stream after each.
 *
 * @returns the recorded name of a hidden state of ours; null if other software does not record it
 */
async function hiddenNames(
  recorded: RecordedLogits,
  layers: readonly Layer[],
): Promise<(name: string) => string | null> {
  const inBlock = layers[0]?.of ?? 1;
  const isOwn = (await recorded.hidden(String(layers.length))) !== null;
  if (inBlock === 1 || isOwn) return (name) => name;
  return (name) => {
    if (name === "norm_f") return name;
    return Number(name) % inBlock === 0 ? String(Number(name) / inBlock) : null;
  };
}

/** Our log-probabilities of the recorded token ids, computed from logits in blocks. */
class ChosenLogprobs {
  readonly #words: readonly number[];
  readonly #k: number;
  readonly #chosen: Float64Array;
  readonly #max: Float64Array;
  readonly #sum: Float64Array;

  constructor(tokens: number, words: readonly number[], k: number) {
    this.#words = words;
    this.#k = k;
    this.#chosen = new Float64Array(tokens * k).fill(Number.NaN);
    this.#max = new Float64Array(tokens).fill(-Infinity);
    this.#sum = new Float64Array(tokens);
  }

  add(lo: number, width: number, values: Float32Array): void {
    for (let t = 0; t < this.#max.length; t++) {
      const row = values.subarray(t * width, (t + 1) * width);
      for (const logit of row) {
        if (logit > this.#max[t]!) {
          this.#sum[t] = this.#sum[t]! * Math.exp(this.#max[t]! - logit) + 1;
          this.#max[t] = logit;
        } else this.#sum[t]! += Math.exp(logit - this.#max[t]!);
      }
      for (let i = t * this.#k; i < (t + 1) * this.#k; i++) {
        const at = this.#words[i]! - lo;
        if (at >= 0 && at < width) this.#chosen[i] = row[at]!;
      }
    }
  }

  /**
   * Compares with recorded log-probabilities. KL is over the recorded token ids only, normalised over them on each side.
   *
   * @param recorded [T, k]
   */
  compareWith(recorded: Float32Array): Omit<PromptResult, "nll" | "firstLayer"> {
    const distance = new Distance();
    let [kl, agreeing, rows] = [0, 0, 0];
    for (const [t, max] of this.#max.entries()) {
      const places = Array.from({ length: this.#k }, (_, i) => t * this.#k + i);
      const known = places.filter((i) => this.#words[i] !== NO_WORD);
      if (known.length === 0) continue;
      const norm = max + Math.log(this.#sum[t]!);
      const [a, b] = [
        Float32Array.from(known, (i) => recorded[i]!),
        Float32Array.from(known, (i) => this.#chosen[i]! - norm),
      ];
      distance.add(a, b);
      const comparison = new LogitsComparison([0]);
      comparison.add(0, known.length, a, b);
      const { klMean, top1 } = comparison.summary(0);
      kl += klMean;
      agreeing += top1;
      rows++;
    }
    return { relL2: distance.relL2, klMean: kl / rows, maxAbs: distance.maxAbs, top1: agreeing / rows };
  }
}
