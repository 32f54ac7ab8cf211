/**
 * One task of the logits rung. A layer needs the activations of the layer before, so one forward pass goes from task to task:
 * each runs its share of the layers, about those whose tensors it has compared, and leaves the state for the next.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { ModelWithScales } from "../checkpoint/load.ts";
import { ignoreEvents } from "../core/events.ts";
import { mainLayers } from "../families/model.ts";
import { layerBytes } from "../inference/model-runner.ts";
import type { Prompt } from "../inference/prompts.ts";
import { divideByBytes } from "../io/tasks/divide.ts";
import type { Task } from "../io/tasks/task-files.ts";
import { type LockstepState, readState, stateMark, writeState } from "./lockstep-state.ts";
import type { CompareOptions } from "./options.ts";
import { streamsUnlike } from "./settings/settings.ts";
import { lockstepRequest, pairBackend, runLayersOf } from "./side-by-side.ts";

interface LayerTask {
  readonly task: Task;
  readonly prompt: Prompt;
  /** folder in which the tasks leave the states */
  readonly folder: string;
  /** `comparisonMark` of the two models */
  readonly mark: string;
  /** of any task: it compares or runs layers now; it has compared, and runs no more; else it has not begun, or was stopped */
  readonly stateOf: (index: number) => Promise<"running" | "ended" | "absent">;
}

/** Main layers [from, to) that a task ran, and where. */
export interface LayersRun {
  readonly from: number;
  readonly to: number;
  readonly backend: string;
  readonly device: string;
}

/** Milliseconds between two looks for the state of the task before. */
const LOOK_MS = 200;

/**
 * Runs the layers of a task: of two models of which the second was just converted from the first. It waits for the tasks before
 * it as long as one of them runs, and goes on with the layers of tasks after it that have ended. What no task runs is left
 * for the merge.
 *
 * @returns null if the task ran no layer
 * @throws as `logitsRung`; a difference is a result
 */
export async function runLayerTask(
  a: ModelWithScales,
  b: ModelWithScales,
  options: CompareOptions,
  { task, prompt, folder, mark, stateOf }: LayerTask,
): Promise<LayersRun | null> {
  if (streamsUnlike(a, b).length > 0) return null;
  const { watch = ignoreEvents, signal } = options;
  const [left, right] = [layerBytes(a), layerBytes(b)];
  const shares = divideByBytes(mainLayers(a), (layer) => left.of(layer) + right.of(layer), task.count);
  const startOf = (index: number) => shares.slice(0, index).flat().length;
  const from = startOf(task.index);
  if (from === startOf(task.index + 1)) return null;
  await using backend = await pairBackend(a, b, options);
  const ofRun = stateMark(mark, prompt, backend.id);
  let begun: LockstepState | null = null;
  if (from > 0) {
    const isComing = async () => {
      for (let index = task.index - 1; index >= 0; index--)
        if ((await stateOf(index)) === "running") return true;
      return false;
    };
    watch({ type: "note", message: `waits for the tasks that run the first ${from} layers` });
    begun = await waitFor(() => readState(folder, ofRun, from), isComing, signal);
    if (begun === null) return null;
  }
  let next = task.index + 1;
  while (next < task.count && (await stateOf(next)) === "ended") next++;
  const to = startOf(next);
  const layers = shares.slice(0, next).flat();
  const totalBytes = layers.reduce((sum, layer) => sum + left.of(layer) + right.of(layer), 0);
  watch({ type: "phase", phase: "logits", totalBytes });
  const request = { ...(await lockstepRequest(a, b, options, prompt)), backend, begun };
  // a conversion writes only the nearest codes; others are differences, for which no weight is read from `b`
  await writeState(folder, ofRun, await runLayersOf(a, b, request, to));
  return { from, to, backend: backend.id, device: backend.device };
}

/** Looks again and again until there is something, or nobody is at work on it any more. */
async function waitFor<T>(
  look: () => Promise<T | null>,
  isComing: () => Promise<boolean>,
  signal: AbortSignal | undefined,
): Promise<T | null> {
  for (;;) {
    const isAwaited = await isComing();
    const found = await look();
    if (found !== null || !isAwaited) return found;
    await sleep(LOOK_MS, undefined, { signal });
  }
}
