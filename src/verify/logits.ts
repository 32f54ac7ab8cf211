/** The logits rung: runs both checkpoints natively on the same tokens, judges the results, and plans the memory. */

import { isAddressSpaceLimited } from "../../kernels/address-space.ts";
import { createMeter } from "../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../kernels/backend/wasm.ts";
import type { Backend } from "../../kernels/kernel.ts";
import { decodeWeights, type LoadedModel, type ModelWithScales } from "../checkpoint/load.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import type { Finding } from "../core/finding.ts";
import { remark } from "../core/finding.ts";
import { Sources } from "../core/read.ts";
import type { Fingerprint } from "../inference/fingerprint.ts";
import { backendFor, memoryOf, threadsOf } from "../inference/machine.ts";
import { blockWords, partBytes } from "../inference/memory.ts";
import { createRunner } from "../inference/model-runner.ts";
import type { Prompt } from "../inference/prompts.ts";
import { ROUNDER_BYTES, Rounder } from "../inference/rounding.ts";
import type { WeightRounder } from "../inference/weight-bands.ts";
import { controlFindings } from "./controls/findings.ts";
import { givenLimits, judgedLimits, type Limits, limitExcesses, limitsFor, looksTrained } from "./limits.ts";
import { compareStepByStep, type LockstepResult } from "./lockstep.ts";
import type { CompareOptions } from "./options.ts";
import { type EqualContent, PAIRING_BYTES, PairedReading } from "./pairs/paired-reading.ts";
import { recastDtypes, roundingsFor } from "./recast-source.ts";
import type { LogitsMetrics, Verdict } from "./report.ts";
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
}

/**
 * Runs both checkpoints and judges the result.
 *
 * @param known `notNearest`: roles of `b` with codes that are not the nearest ones to those of `a`. `pairs`: nothing is recast, so
 *   compare the weights of both sides while they are read
 * @throws PLAN_MEMORY, NOT_AVAILABLE, TENSOR_MISSING, and read errors; a bad result is a verdict
 */
export async function logitsRung(
  a: ModelWithScales,
  b: ModelWithScales,
  options: CompareOptions,
  { ids, textTokens }: Pick<Prompt, "ids" | "textTokens">,
  { notNearest = new Set(), pairs = false }: LogitsKnowledge = {},
): Promise<LogitsRung> {
  const watch = options.watch ?? ignoreEvents;
  const recastTo = recastDtypes(a, b);
  const memoryBytes = memoryOf(options) - (recastTo.size > 0 ? ROUNDER_BYTES : 0);
  await using backend = await backendFor({ ...options, memoryBytes });
  const result = await runLockstep(a, b, {
    backend,
    ids,
    textTokens,
    notNearest,
    pairs,
    memoryBytes: memoryOf(options),
    rounder: recastTo.size > 0 ? await Rounder.create() : NO_ROUNDER,
    watch,
    signal: options.signal,
  });
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

/** What the bytes rung has found, or leaves to be found. */
export interface LogitsKnowledge {
  readonly notNearest?: ReadonlySet<string>;
  readonly pairs?: boolean;
}

/** Nothing is rounded where nothing is recast; a rounder has a memory, and with it 10 GiB of addresses. */
const NO_ROUNDER: WeightRounder = {
  round() {
    throw new IsologitError("INTERNAL", "a weight is rounded, and nothing is recast");
  },
};

interface LockstepRequest {
  readonly backend: Backend;
  readonly ids: readonly number[];
  readonly textTokens?: number;
  /** compare only this number of token ids from the start of the vocabulary; default all */
  readonly words?: number;
  /** roles with codes that are not the nearest ones; default none */
  readonly notNearest?: ReadonlySet<string>;
  /** compare the weights of both sides while they are read, if the memory of the backend is shared; default false */
  readonly pairs?: boolean;
  readonly memoryBytes: number;
  readonly rounder: WeightRounder;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

/** Runs both checkpoints step by step and compares every door and the logits. */
export async function runLockstep(
  storedA: ModelWithScales,
  storedB: ModelWithScales,
  request: LockstepRequest,
): Promise<LockstepResult & { readonly equal: EqualContent }> {
  const [a, b] = [decodeWeights(storedA), decodeWeights(storedB)];
  const { backend, ids, memoryBytes, rounder, watch, signal } = request;
  const { family } = a;
  const dims = { ...a.dims, vocab: request.words ?? a.dims.vocab };
  await using sourcesA = new Sources(a.checkpoint.store);
  await using sourcesB = new Sources(decodeWeights(storedB, { blocks: true }).checkpoint.store);
  const roundings = roundingsFor(storedA, storedB, request.notNearest ?? new Set(), sourcesB);
  await using pairs = request.pairs === true ? await pairedReading(backend) : undefined;
  const bytes = partBytes(memoryBytes);
  const advance = (bytes: number) => watch({ type: "advance", phase: "logits", bytes });
  const inOrder = roundings.size === 0;
  const buffers = inOrder ? 3 : 2;
  const common = { backend, tokens: ids.length, rounder, bandBytes: bytes, buffers, advance, signal };
  const runnerA = createRunner(a, { ...common, sources: sourcesA, roundings, inOrder });
  const runnerB = createRunner(b, { ...common, sources: sourcesB, roundings: new Map() });
  const result = await compareStepByStep({
    backend,
    forward: family.forward,
    dims,
    layers: a.layers,
    ids,
    textTokens: request.textTokens ?? 0,
    a: runnerA,
    b: runnerB,
    recast: roundings.size > 0,
    pairs,
    advance,
    blockBytes: bytes / 2,
    watch,
    signal,
  });
  const equal = (await pairs?.finish()) ?? new Map(); // the digests use the memory of the runners
  runnerA.close();
  runnerB.close();
  return { ...result, equal };
}

/** Undefined where no thread can compare what a backend holds: on a GPU, and where addresses are limited. */
async function pairedReading(backend: Backend): Promise<PairedReading | undefined> {
  const { memory } = backend;
  return memory === undefined || isAddressSpaceLimited()
    ? undefined
    : await PairedReading.open(backend, memory);
}

/**
 * Peak bytes of buffers of the rung, measured by a run on a backend that only counts memory: nothing is read and nothing
 * is computed. The bytes of the tensors are not needed, so this works for a destination that does not exist yet.
 */
export async function neededBytes(
  a: LoadedModel,
  b: LoadedModel,
  options: CompareOptions,
  ids: readonly number[],
): Promise<number> {
  const meter = createMeter(threadsOf(options));
  const [scales, rounder] = [new Map(), { round() {} }];
  const { vocab } = a.dims;
  const memoryBytes = memoryOf(options);
  const words = Math.min(vocab, blockWords(partBytes(memoryBytes) / 2, ids.length)); // a block has no more token ids than this
  const request = {
    backend: meter,
    ids,
    words,
    rounder,
    memoryBytes,
    watch: ignoreEvents,
    signal: options.signal,
  };
  await runLockstep({ ...a, scaleValues: scales }, { ...b, scaleValues: scales }, request);
  return meter.peakBytes + (recastDtypes(a, b).size > 0 ? ROUNDER_BYTES : PAIRING_BYTES);
}

/** Checks that the memory is enough. @throws PLAN_MEMORY with the number of bytes that would be enough */
export async function refuseMemory(
  a: LoadedModel,
  b: LoadedModel,
  options: CompareOptions,
  ids: readonly number[],
): Promise<void> {
  const needed = await neededBytes(a, b, options, ids);
  if (needed > ADDRESSABLE_BYTES) {
    const message = `the forward passes need ${needed} bytes of buffers; WebAssembly has ${ADDRESSABLE_BYTES}`;
    throw new IsologitError("PLAN_MEMORY", message, {}, { next: "give fewer `tokens`" });
  }
  if (needed > memoryOf(options)) {
    const message = `${memoryOf(options)} bytes of buffers are allowed; the forward passes need ${needed}`;
    throw new IsologitError("PLAN_MEMORY", message);
  }
}
