/**
 * A run that uses the recorded experts of an earlier run. A near tie in a router may be decided differently on another
 * backend, and another expert computes another function. Therefore the recorded experts compute, and the router's present
 * choice is compared with its recorded choice. Where the two differ, the scores must be so close that the arithmetic of
 * the backends explains the difference.
 */

import { sameBits } from "../core/distance.ts";
import { IsologitError } from "../core/errors.ts";
import type { ExpertChoice, KernelStage, Stage } from "../families/forward.ts";
import type { Dims } from "../families/structure.ts";
import { type Streams, stageStreams } from "./activations.ts";
import { FINGERPRINT_BOUND } from "./fingerprint.ts";
import type { StreamSet } from "./products/multiplier.ts";
import { parseRecordedExperts, type RecordedExperts } from "./recorded-experts.ts";

/** The router of a layer during a run. */
export interface Router {
  readonly layer: number;
  readonly tokens: number;
  readonly choice: ExpertChoice;
  /** [T, chosen a token] experts that this router chose */
  readonly own: Float32Array;
  /** [T, experts] the router's product, from which the scores are computed, or by which it chooses */
  logits(): Promise<Float32Array>;
  /** chooses experts for other logits [T, experts]; `change` may edit the scores [T, experts] before the choice */
  chooseBy(logits: Float32Array, change: (scores: Float32Array) => void): Promise<Float32Array>;
}

export interface RouterParts extends Pick<Router, "layer" | "tokens" | "own"> {
  readonly dims: Dims;
  /** stages of the block: a product makes the logits, kernels may turn them into scores, and `chooses` reads the result */
  readonly stages: readonly Stage[];
  readonly chooses: KernelStage & Required<Pick<KernelStage, "choice">>;
  readonly streams: Streams;
  /** creates streams in addition to those of the model */
  readonly createStreams: () => Streams;
  readonly run: (stage: Stage, set: StreamSet) => Promise<void>;
}

/** Creates the `Router` of a layer that is being run. */
export function createRouter(routing: RouterParts): Router {
  const { layer, tokens, own, dims, stages, chooses, streams, createStreams, run } = routing;
  const scores = chooses.from[0]!;
  const scoring = kernelsBefore(stages, scores);
  const logits = scoring[0]?.from[0] ?? scores;
  return {
    ...{ layer, tokens, own, choice: chooses.choice(dims) },
    logits: () => streams.view(logits),
    async chooseBy(others, change) {
      const probe = createStreams();
      probe.make([logits, ...scoring.map(({ to }) => to), chooses.to]);
      await probe.put(logits, others);
      for (const stage of scoring) await run(stage, probe.set());
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

/** The kernels between a product and `stream`, in order; none if `stream` is itself a product. */
function kernelsBefore(stages: readonly Stage[], stream: string): readonly KernelStage[] {
  const maker = stages.find((stage) => stageStreams(stage).makes.includes(stream));
  return maker?.op === "kernel" ? [...kernelsBefore(stages, maker.from[0]!), maker] : [];
}

/** Compares the choices of all routers of a run with the recorded choices. */
export class RoutingComparison {
  readonly #recorded: ReadonlyMap<number, RecordedExperts>;
  /** tokens, over all layers, whose choice differs from the recorded one and is explained by a near tie */
  flips = 0;
  /** tokens, over all layers, whose choice differs and is not explained by a near tie */
  beyond = 0;
  /** the first layer with a token that counts in `beyond` */
  firstBeyond: number | null = null;

  constructor(recorded: readonly RecordedExperts[]) {
    this.#recorded = new Map(recorded.map((experts) => [experts.layer, experts]));
  }

  /**
   * Compares one layer.
   *
   * @returns the recorded experts that must compute, [T, chosen a token]
   * @throws CERTIFICATE_INVALID where the record does not fit the layer
   */
  async follow(router: Router): Promise<Float32Array> {
    const { layer, tokens, choice } = router;
    const recorded = this.#recorded.get(layer);
    if (recorded === undefined)
      throw new IsologitError("CERTIFICATE_INVALID", `the certificate has no experts for layer ${layer}`);
    const { followed, own } = parseRecordedExperts(recorded, tokens, choice);
    const row = (chosen: Float32Array, t: number) =>
      chosen.subarray(t * choice.perToken, (t + 1) * choice.perToken);
    const others = Array.from({ length: tokens }, (_, t) => t).filter(
      (t) => !sameBits(row(router.own, t), row(own, t)),
    );
    if (others.length === 0) return followed;
    const reachable = await chooseInFavourOf(own, router);
    for (const t of others) {
      if (sameBits(row(reachable, t), row(own, t))) this.flips++;
      else {
        this.beyond++;
        this.firstBeyond ??= layer;
      }
    }
    return followed;
  }
}

/**
 * The router's choice when every permitted difference between two backends favours `chosen`. The logits of a token may
 * differ by FINGERPRINT_BOUND in relative L2, so each logit may differ by that fraction of their norm. The scores may
 * differ by one more rounding on each side.
 *
 * @param chosen [T, chosen a token]
 * @returns [T, chosen a token]
 */
async function chooseInFavourOf(chosen: Float32Array, router: Router): Promise<Float32Array> {
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
    favour(
      scores,
      (row) => 2 * rounding * row.reduce((largest, score) => Math.max(largest, Math.abs(score)), 0),
    ),
  );
}
