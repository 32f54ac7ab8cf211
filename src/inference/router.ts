/**
 * A run that follows the experts of an earlier one. A near tie in a router may fall the other way on another backend,
 * and another expert is another function: so those that were recorded compute, and the router is held to what it chose
 * then. Where it chooses otherwise now, its scores must be as near to that as the backends' arithmetic is.
 */

import { sameBits } from "../core/distance.ts";
import { IsologitError } from "../core/errors.ts";
import type { ExpertChoice, KernelStage, Stage } from "../families/forward.ts";
import type { Dims } from "../families/structure.ts";
import { type Streams, stageStreams } from "./activations.ts";
import { FINGERPRINT_BOUND } from "./fingerprint.ts";
import { parseRecordedExperts, type RecordedExperts } from "./recorded-experts.ts";
import type { StreamSet } from "./runner.ts";

/** A layer's router at work. */
export interface Router {
  readonly layer: number;
  readonly tokens: number;
  readonly choice: ExpertChoice;
  /** [T, chosen a token] its own choice */
  readonly own: Float32Array;
  /** [T, experts] the logits that its scores are made of */
  logits(): Promise<Float32Array>;
  /** what it would choose by other logits, and by its scores of them as `change` leaves them */
  chooseBy(logits: Float32Array, change: (scores: Float32Array) => void): Promise<Float32Array>;
}

export interface Routing extends Pick<Router, "layer" | "tokens" | "own"> {
  readonly dims: Dims;
  /** those of the block; the one that chooses reads scores, and the one that makes these reads logits */
  readonly stages: readonly Stage[];
  readonly chooses: KernelStage & Required<Pick<KernelStage, "choice">>;
  readonly streams: Streams;
  /** room for streams beside those of the model */
  readonly room: () => Streams;
  readonly run: (stage: Stage, set: StreamSet) => Promise<void>;
}

export function createRouter(routing: Routing): Router {
  const { layer, tokens, own, dims, stages, chooses, streams, room, run } = routing;
  const scores = chooses.from[0]!;
  const scoring = stages.find((stage) => stageStreams(stage).makes.includes(scores))!;
  const logits = stageStreams(scoring).reads[0]!;
  return {
    ...{ layer, tokens, own, choice: chooses.choice(dims) },
    logits: () => streams.view(logits),
    async chooseBy(others, change) {
      const probe = room();
      probe.make([logits, scores, chooses.to]);
      await probe.put(logits, others);
      await run(scoring, probe.set());
      const changed = Float32Array.from(await probe.view(scores));
      change(changed);
      await probe.put(scores, changed);
      await run(chooses, probe.set());
      const chosen = Float32Array.from(await probe.view(chooses.to));
      probe.releaseAll();
      return chosen;
    },
  };
}

export class RoutingComparison {
  readonly #recorded: ReadonlyMap<number, RecordedExperts>;
  /** tokens, over all layers, for which the router chose otherwise than was recorded: near ties, and others */
  flips = 0;
  beyond = 0;
  /** the first layer with one of the others */
  firstBeyond: number | null = null;

  constructor(recorded: readonly RecordedExperts[]) {
    this.#recorded = new Map(recorded.map((one) => [one.layer, one]));
  }

  /**
   * @returns the experts that were followed then
   * @throws CERTIFICATE_INVALID
   */
  async follow(router: Router): Promise<Float32Array> {
    const { layer, tokens, choice } = router;
    const recorded = this.#recorded.get(layer);
    if (recorded === undefined)
      throw new IsologitError("CERTIFICATE_INVALID", `it has no experts of layer ${layer}`);
    const { followed, own } = parseRecordedExperts(recorded, tokens, choice);
    const row = (chosen: Float32Array, t: number) =>
      chosen.subarray(t * choice.perToken, (t + 1) * choice.perToken);
    const others = Array.from({ length: tokens }, (_, t) => t).filter(
      (t) => !sameBits(row(router.own, t), row(own, t)),
    );
    if (others.length === 0) return followed;
    const reached = await favouring(own, router);
    for (const t of others) {
      if (sameBits(row(reached, t), row(own, t))) this.flips++;
      else {
        this.beyond++;
        this.firstBeyond ??= layer;
      }
    }
    return followed;
  }
}

/**
 * What the router chooses where all that two backends may differ by speaks for `chosen`. The logits of a token may differ
 * as all may that a fingerprint holds, by FINGERPRINT_BOUND in relative L2, and so any one of them by that part of their
 * norm; scores have roundings of their own on either side.
 */
async function favouring(chosen: Float32Array, router: Router): Promise<Float32Array> {
  const { experts, perToken, rounding } = router.choice;
  /** Raises the values of each token's chosen experts, and lowers all others. */
  const favour = (values: Float32Array, margin: (row: Float32Array) => number) => {
    for (let t = 0; t < router.tokens; t++) {
      const row = values.subarray(t * experts, (t + 1) * experts);
      const wanted = new Set(chosen.subarray(t * perToken, (t + 1) * perToken));
      const by = margin(row);
      for (let e = 0; e < experts; e++) row[e]! += wanted.has(e) ? by : -by;
    }
  };
  const logits = Float32Array.from(await router.logits());
  favour(logits, (row) => FINGERPRINT_BOUND * Math.sqrt(row.reduce((sum, logit) => sum + logit * logit, 0)));
  return router.chooseBy(logits, (scores) =>
    favour(scores, (row) => 2 * rounding * row.reduce((most, score) => Math.max(most, Math.abs(score)), 0)),
  );
}
