/** The logits rung: runs both checkpoints natively on the same tokens, and judges the results. */

import type { ModelWithScales } from "../checkpoint/load.ts";
import type { Finding } from "../core/finding.ts";
import { remark } from "../core/finding.ts";
import type { Fingerprint } from "../inference/fingerprint.ts";
import type { Prompt } from "../inference/prompts.ts";
import { controlFindings } from "./controls/findings.ts";
import { givenLimits, judgedLimits, type Limits, limitExcesses, limitsFor, looksTrained } from "./limits.ts";
import type { LockstepResult } from "./lockstep.ts";
import type { LockstepState } from "./lockstep-state.ts";
import type { CompareOptions } from "./options.ts";
import type { EqualContent } from "./pairs/equal-digests.ts";
import { recastDtypes } from "./recast-source.ts";
import type { LogitsMetrics, Verdict } from "./report.ts";
import { lockstepRequest, pairBackend, runLockstep } from "./side-by-side.ts";
import { addPositionTexts } from "./worst-positions.ts";

export interface LogitsRung {
  readonly verdict: Verdict;
  readonly backend: string;
  readonly device: string;
  readonly metrics: LogitsMetrics;
  readonly limits: Limits;
  /** names of limits that were not judged */
  readonly unjudged: readonly string[];
  readonly bad: LockstepResult["bad"];
  readonly fingerprint: Fingerprint;
  readonly findings: readonly Finding[];
  /** pairs of tensors that were found equal while they were read; empty unless the rung was asked to look */
  readonly equal: EqualContent;
  /** number of main layers that other processes have run */
  readonly layersKnown: number;
}

/**
 * Runs both checkpoints and judges the result.
 *
 * @throws PLAN_MEMORY, NOT_AVAILABLE, TENSOR_MISSING, and read errors; a bad result is a verdict
 */
export async function logitsRung(
  a: ModelWithScales,
  b: ModelWithScales,
  options: CompareOptions,
  prompt: Pick<Prompt, "ids" | "textTokens">,
  { begunBy, ...known }: LogitsKnowledge = {},
): Promise<LogitsRung> {
  const { ids, textTokens } = prompt;
  const recastTo = recastDtypes(a, b);
  await using backend = await pairBackend(a, b, options);
  const begun = (await begunBy?.(prompt, backend.id)) ?? null;
  const request = await lockstepRequest(a, b, options, prompt);
  const result = await runLockstep(a, b, { ...request, ...known, backend, begun });
  const limits = limitsFor(recastTo, options);
  const trained = looksTrained(result.logits, textTokens || ids.length, a.dims.vocab);
  const unusedScales = [...b.scales.unusedScales].sort();
  const { logits } = result;
  const given = givenLimits(options);
  const judged = judgedLimits(recastTo, trained, options);
  // where logits of the source are NaN or infinite, no limit can be judged: the verdict is `unproven`
  const beyond = logits.nonFiniteA > 0 ? [] : limitExcesses(logits, judged);
  const findings: Finding[] = beyond.map((message) => remark("limit-exceeded", message));
  if (recastTo.size > 0 && !trained) {
    const only = Object.keys(given).length === 0 ? "not judged" : "judged by the given limits alone";
    const message = `quality is reported, ${only}: on these tokens the source predicts no better than chance`;
    findings.push(remark("quality-unjudged", message));
  }
  if (textTokens > 0 && !trained) {
    const [loss, chance] = [logits.nllA, Math.log(a.dims.vocab)].map((nats) => nats.toFixed(2));
    findings.push(
      remark(
        "weights-untrained",
        `the loss on text is ${loss} nats per token and chance is ${chance}: the weights are untrained, or both sides have the same fault`,
      ),
    );
  }
  for (const [name, count] of [
    ["first", logits.nonFiniteA] as const,
    ["second", logits.nonFiniteB] as const,
  ]) {
    const message = `${count} logits of the ${name} checkpoint are NaN or infinite`;
    if (count > 0) findings.push(remark("logits-not-finite", message));
  }
  findings.push(...controlFindings(result.controls));
  return {
    verdict: logitsVerdict(result, recastTo.size > 0, beyond.length > 0),
    backend: backend.id,
    device: backend.device,
    metrics: {
      tokens: ids.length,
      ...logits,
      positions: await addPositionTexts(logits.positions, ids, a.checkpoint),
      layers: result.layers,
      wiring: result.wiring,
      routing: { flips: result.flips },
      unread: unusedScales,
      controls: result.controls,
    },
    limits,
    unjudged:
      recastTo.size === 0
        ? []
        : Object.keys(limits).filter((name) => logits.nonFiniteA > 0 || !Object.hasOwn(judged, name)),
    bad: result.bad,
    fingerprint: result.fingerprint,
    findings,
    equal: result.equal,
    layersKnown: begun?.layers ?? 0,
  };
}

/**
 * The verdict of a run. Where nothing is recast and both sides add in the same order, the logits must be the same bits.
 * Where partial sums of ranks are added, every door must be within its wiring limit.
 *
 * A destination with NaN or infinite logits is `different` where the source has none. Where the source has them too, the
 * two cannot be compared: `unproven`. The verdict is also `unproven` where a control was missed, and where no control of a
 * layer's matrix was caught: in a model whose layers make only zeros, other weights would not show.
 *
 * @param recast destination weights have other bits than the source
 * @param tooFar a quality limit is exceeded
 */
export function logitsVerdict(
  { bad, logits, inOrder, controls }: Pick<LockstepResult, "bad" | "logits" | "inOrder" | "controls">,
  recast: boolean,
  tooFar: boolean,
): Verdict {
  const lost = recast && logits.nonFiniteA === 0 && logits.nonFiniteB > 0;
  const otherBits = !recast && inOrder && logits.maxAbs !== 0;
  if (bad.length > 0 || tooFar || lost || otherBits) return "different";
  if (logits.nonFiniteA > 0) return "unproven";
  if (controls.some(({ caught }) => caught === false)) return "unproven";
  if (!controls.some(({ caught, matrix }) => caught === true && matrix)) return "unproven";
  return recast ? "within" : "same";
}

/** What the bytes rung has found, or leaves to be found, and what other processes have run. */
export interface LogitsKnowledge {
  /** roles of `b` with codes that are not the nearest ones to those of `a`; default none */
  readonly notNearest?: ReadonlySet<string>;
  /** nothing is recast: digest tensors that both sides store alike; default false */
  readonly digests?: boolean;
  /** the state after the first layers, if other processes have run them for this prompt on such a backend */
  readonly begunBy?: BegunLayers | undefined;
}

export type BegunLayers = (
  prompt: Pick<Prompt, "ids" | "textTokens">,
  backend: string,
) => Promise<LockstepState | null>;
