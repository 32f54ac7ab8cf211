/** A model's main layers, one after the other, over the streams of one run of tokens. */
import type { Backend } from "../../kernels/kernel.ts";
import type { Stage } from "../families/forward.ts";
import type { Matched } from "../families/model.ts";
import { mainLayers } from "../families/model.ts";
import type { Layer } from "../families/structure.ts";
import { Streams, stageStreams } from "./activations.ts";
import { ExpertRows } from "./expert-rows.ts";
import { createRouter, type Router, type Routing } from "./router.ts";
import type { ModelRunner } from "./runner.ts";

export interface Walk {
  readonly model: Matched;
  /** made for as many tokens as the run has */
  readonly side: ModelRunner;
  readonly backend: Backend;
  readonly signal: AbortSignal | undefined;
}

export interface Seams {
  /** another way to run a stage of a layer; default its own */
  stage?(stage: Stage, layer: Layer): Stage;
  /** after the embedding and so many layers: their sum, [T, hidden], where `values` is called */
  residual?(done: number, values: () => Promise<Float32Array>): Promise<void>;
  /** other experts than a router's own, [T, chosen a token] */
  follow?: ((router: Router) => Promise<Float32Array>) | undefined;
  /** the experts that each token of a layer goes to, [T, chosen a token] */
  experts?: ((layer: number, chosen: Float32Array) => void | Promise<void>) | undefined;
}

/** @returns the streams, of which "residual" is left */
export async function runLayers(
  { model, side, backend, signal }: Walk,
  ids: readonly number[],
  seams: Seams,
): Promise<Streams> {
  const { dims, family } = model;
  const { forward } = family;
  const widths = forward.streams(dims);
  let dealing: ExpertRows | undefined;
  const rowsOf = (name: string) => (forward.dispatched.includes(name) ? dealing!.rows : ids.length);
  const lengthOf = (name: string) => rowsOf(name) * widths[name]!;
  const streams = new Streams(backend, lengthOf);
  const residual = () => streams.view("residual");
  streams.make(["residual"]);
  await side.embed(ids, "stored", streams.regions.get("residual")!);
  await seams.residual?.(0, residual);
  for (const layer of mainLayers(model)) {
    const stages = forward.block(layer.kind, dims);
    const place = side.layer(layer);
    for (const [i, stage] of stages.entries()) {
      signal?.throwIfAborted();
      streams.make(stageStreams(stage).makes);
      await side.run(seams.stage?.(stage, layer) ?? stage, place, [streams.set()], dealing);
      if (stage.op === "kernel" && stage.choice !== undefined) {
        const { choice } = stage;
        const own = await streams.view(stage.to);
        const router: Routing = {
          ...{ layer: layer.index, tokens: ids.length, own, dims, stages, streams },
          chooses: { ...stage, choice },
          room: () => new Streams(backend, lengthOf),
          run: (other, set) => side.run(other, place, [set]),
        };
        const chosen = (await seams.follow?.(createRouter(router))) ?? own;
        if (chosen !== own) await streams.put(stage.to, chosen);
        dealing = await ExpertRows.of(backend, chosen, ids.length, choice(dims), false);
        await seams.experts?.(layer.index, chosen);
      }
      streams.releaseUnused(stages, i);
    }
    await streams.addResidual();
    side.forget();
    dealing?.release();
    dealing = undefined;
    await seams.residual?.(layer.index + 1, residual);
  }
  return streams;
}
