/** Measures cuts of a model on prompts, in as few readings of the weights as the memory allows. */
import { createMeter } from "../../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../../kernels/backend/wasm.ts";
import type { ModelWithScales } from "../../checkpoint/load.ts";
import type { RunOptions } from "../../checkpoint/options.ts";
import { IsologitError } from "../../core/errors.ts";
import { ignoreEvents } from "../../core/events.ts";
import { backendFor, memoryOf, threadsOf } from "../../inference/machine.ts";
import { blockWords, partBytes } from "../../inference/memory.ts";
import { runBytes } from "../../inference/model-runner.ts";
import type { Cut } from "../cut.ts";
import { type Damage, damageOf } from "../damage.ts";
import { compareCuts, type LayerCut, type PromptChange } from "./cut-runs.ts";

interface MeasuredCuts {
  /** of each cut */
  readonly damages: readonly Damage[];
  /** of each cut, for each prompt */
  readonly changes: readonly (readonly PromptChange[])[];
  /** number of times that the weights were read */
  readonly readings: number;
  readonly backend: string;
  readonly device: string;
}

type Prompts = readonly (readonly number[])[];

/**
 * Compares cuts with the model. On WASM neither `threads` nor `memoryBytes` changes a bit of the result.
 *
 * @param prompts token ids; each prompt begins with an empty state
 * @throws PLAN_MEMORY if the memory is too small for one cut and the longest prompt; UNSUPPORTED where the model does not run;
 *   NOT_AVAILABLE for a backend; TENSOR_MISSING, and read errors
 */
export async function measureCuts(
  model: ModelWithScales,
  cuts: readonly LayerCut[],
  prompts: Prompts,
  options: RunOptions,
): Promise<MeasuredCuts> {
  const { watch = ignoreEvents, signal } = options;
  const memoryBytes = memoryOf(options);
  const { cutGroups, promptGroups } = await planReadings(model, cuts, prompts, options);
  const readings = cutGroups.length * promptGroups.length;
  watch({ type: "phase", phase: "search", totalBytes: readings * runBytes(model, ["main"]) });
  await using backend = await backendFor(options);
  const changes: PromptChange[][] = [];
  for (const group of cutGroups) {
    const ofCuts: PromptChange[][] = group.map(() => []);
    for (const prompts of promptGroups) {
      const request = { backend, prompts, memoryBytes, watch, signal };
      const found = await compareCuts(model, group, request);
      for (const [i, ofPrompts] of found.entries()) ofCuts[i]!.push(...ofPrompts);
    }
    changes.push(...ofCuts);
  }
  return { damages: changes.map(damageOf), changes, readings, backend: backend.id, device: backend.device };
}

/** The damage of a cut that is not written; null where heads or hidden channels go: only the written model shows what that does. */
export async function maskedDamage(
  model: ModelWithScales,
  cut: Cut,
  prompts: Prompts,
  options: RunOptions,
): Promise<Damage | null> {
  if (cut.hidden !== undefined || cut.heads.size > 0 || cut.mambaHeads.size > 0) return null;
  return (await measureCuts(model, [cut], prompts, options)).damages[0]!;
}

/**
 * Divides the work into readings. Dividing the prompts repeats no arithmetic, and dividing the cuts repeats what they share, so
 * cuts are divided only where one prompt with all of them is too large.
 */
async function planReadings(
  model: ModelWithScales,
  cuts: readonly LayerCut[],
  prompts: Prompts,
  options: RunOptions,
): Promise<{
  readonly cutGroups: readonly (readonly LayerCut[])[];
  readonly promptGroups: readonly Prompts[];
}> {
  const allowed = Math.min(memoryOf(options), ADDRESSABLE_BYTES);
  const longest = prompts.reduce((most, prompt) => (prompt.length > most.length ? prompt : most));
  let needed = 0;
  const fits = async (cutGroups: readonly (readonly LayerCut[])[], promptGroups: readonly Prompts[]) => {
    for (const group of cutGroups) {
      for (const ofGroup of promptGroups) {
        needed = await neededBytes(model, group, ofGroup, options);
        if (needed > allowed) return false;
      }
    }
    return true;
  };
  for (const cutGroups of divisionsOf(cuts)) {
    if (!(await fits(cutGroups, [[longest]]))) continue;
    for (const promptGroups of divisionsOf(prompts))
      if (await fits(cutGroups, promptGroups)) return { cutGroups, promptGroups };
  }
  const message = `${allowed} bytes of buffers are allowed; one candidate and the longest prompt need ${needed}`;
  const next = "give shorter prompts, or more `memoryBytes`";
  throw new IsologitError("PLAN_MEMORY", message, {}, { next });
}

/** A list in one group, then in more and more groups of about equal size. */
function* divisionsOf<T>(items: readonly T[]): Generator<readonly (readonly T[])[]> {
  let last = Number.POSITIVE_INFINITY;
  for (let count = 1; count <= Math.max(1, items.length); count++) {
    const size = Math.max(1, Math.ceil(items.length / count));
    if (size === last) continue;
    last = size;
    yield Array.from({ length: Math.ceil(items.length / size) }, (_, i) =>
      items.slice(i * size, (i + 1) * size),
    );
  }
}

/** Peak bytes of buffers of one reading, measured by a run that only counts memory. */
async function neededBytes(
  model: ModelWithScales,
  cuts: readonly LayerCut[],
  prompts: Prompts,
  options: RunOptions,
): Promise<number> {
  const meter = createMeter(threadsOf(options));
  const memoryBytes = memoryOf(options);
  const tokens = prompts.reduce((sum, { length }) => sum + length, 0);
  const words = Math.min(model.dims.vocab, blockWords(partBytes(memoryBytes) / 2, tokens)); // no block is larger
  const { signal } = options;
  await compareCuts(model, cuts, { backend: meter, prompts, memoryBytes, words, signal });
  return meter.peakBytes;
}
