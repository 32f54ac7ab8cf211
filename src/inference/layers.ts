/** Runs the main layers of a model in order, for one list of tokens. */
import type { Backend } from "../../kernels/kernel.ts";
import type { Forward, Stage } from "../families/forward.ts";
import type { MatchedModel } from "../families/model.ts";
import { mainLayers } from "../families/model.ts";
import type { Layer } from "../families/structure.ts";
import { Streams, stageStreams } from "./activations.ts";
import { ExpertRows, type ExpertRun } from "./expert-rows.ts";
import { createRouter, type Router, type RouterParts } from "./router.ts";
import type { ModelRunner } from "./runner.ts";

interface LayerRun {
  readonly model: MatchedModel;
  /** created for exactly as many tokens as `ids` has */
  readonly runner: ModelRunner;
  readonly backend: Backend;
  readonly signal: AbortSignal | undefined;
}

/** Optional callbacks of `runLayers`. */
interface LayerHooks {
  /**
   * called before a stage runs; `view` reads one of the streams that the stage reads, [rows, width]
   *
   * @param experts which rows of a dispatched stream belong to which expert; empty before the router chose
   */
  observe?(
    stage: Stage,
    layer: Layer,
    view: (stream: string) => Promise<Float32Array>,
    experts: readonly ExpertRun[],
  ): Promise<void>;
  /** replaces a stage of a layer; default: the stage itself */
  stage?(stage: Stage, layer: Layer): Stage;
  /** called after the embedding (0) and after each layer; `values` reads the residual stream, [T, hidden] */
  residual?(done: number, values: () => Promise<Float32Array>): Promise<void>;
  /** replaces the router's choice of experts; returns [T, chosen a token] */
  follow?: ((router: Router) => Promise<Float32Array>) | undefined;
  /** the experts that compute each token of a layer, [T, chosen a token] */
  experts?: ((layer: number, chosen: Float32Array) => void | Promise<void>) | undefined;
}

/** Runs the stages between the embedding and the first layer, in every run. */
export async function runEntry(
  { entry = [] }: Pick<Forward, "entry">,
  runner: ModelRunner,
  runs: readonly Streams[],
): Promise<void> {
  for (const [i, stage] of entry.entries()) {
    for (const streams of runs) streams.make(stageStreams(stage).makes);
    const sets = runs.map((streams) => streams.set());
    await runner.run(stage, runner.embedding, sets);
    for (const streams of runs) streams.releaseUnused(entry, i);
  }
  runner.forget();
  if (entry.length > 0) for (const streams of runs) streams.replaceResidual();
}

/**
 * Runs the embedding and all main layers.
 *
 * @returns the streams; only "residual", [T, hidden], is still allocated
 */
export async function runLayers(
  { model, runner, backend, signal }: LayerRun,
  ids: readonly number[],
  hooks: LayerHooks,
): Promise<Streams> {
  const { dims, family } = model;
  const { forward } = family;
  const widths = forward.streams(dims);
  let expertRows: ExpertRows | undefined;
  const rowsOf = (name: string) => (forward.dispatched.includes(name) ? expertRows!.rows : ids.length);
  const lengthOf = (name: string) => rowsOf(name) * widths[name]!;
  const streams = new Streams(backend, lengthOf);
  const residual = () => streams.view("residual");
  streams.make(["residual"]);
  await runner.embed(ids, "stored", streams.regions.get("residual")!);
  await runEntry(forward, runner, [streams]);
  await hooks.residual?.(0, residual);
  for (const layer of mainLayers(model)) {
    const stages = forward.block(layer.kind, dims);
    const names = runner.layer(layer);
    for (const [i, stage] of stages.entries()) {
      signal?.throwIfAborted();
      streams.make(stageStreams(stage).makes);
      await hooks.observe?.(stage, layer, (stream) => streams.view(stream), expertRows?.experts ?? []);
      await runner.run(hooks.stage?.(stage, layer) ?? stage, names, [streams.set()], expertRows);
      if (stage.op === "kernel" && stage.choice !== undefined) {
        const { choice } = stage;
        const own = await streams.view(stage.to);
        const router: RouterParts = {
          ...{ layer: layer.index, tokens: ids.length, own, dims, stages, streams },
          chooses: { ...stage, choice },
          createStreams: () => new Streams(backend, lengthOf),
          run: (other, set) => runner.run(other, names, [set]),
        };
        const chosen = (await hooks.follow?.(createRouter(router))) ?? own;
        if (chosen !== own) await streams.put(stage.to, chosen);
        expertRows = await ExpertRows.of(backend, chosen, ids.length, choice(dims), false);
        await hooks.experts?.(layer.index, chosen);
      }
      streams.releaseUnused(stages, i);
    }
    await streams.addResidual();
    runner.forget();
    expertRows?.release();
    expertRows = undefined;
    await hooks.residual?.(layer.index + 1, residual);
  }
  return streams;
}
