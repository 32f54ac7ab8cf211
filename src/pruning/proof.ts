/** Proves that a written checkpoint is the cut that was intended: its cover, its bytes, and its forward pass against the masked source. */
import { createMeter } from "../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../kernels/backend/wasm.ts";
import type { Backend } from "../../kernels/kernel.ts";
import {
  decodeWeights,
  type LoadedModel,
  type ModelWithScales,
  readScaleValues,
} from "../checkpoint/load.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { countOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import { type Finding, remark } from "../core/finding.ts";
import { Sources } from "../core/read.ts";
import { backendFor, memoryOf, threadsOf } from "../inference/machine.ts";
import { blockWords, partBytes } from "../inference/memory.ts";
import { createRunner, refuseUnrunnable, runBytes } from "../inference/model-runner.ts";
import type { Prompt } from "../inference/prompts.ts";
import { Rounder } from "../inference/rounding.ts";
import type { WeightRounder } from "../inference/weight-bands.ts";
import { controlFindings } from "../verify/controls/findings.ts";
import { reportedFindings } from "../verify/judge-findings.ts";
import type { Proof, RungReport, Verdict, VerifyReport } from "../verify/report.ts";
import { worseVerdict } from "../verify/verdict.ts";
import { verifyModels } from "../verify/verify.ts";
import type { Cut } from "./cut.ts";
import { compareCut } from "./cut-lockstep.ts";
import { type CutModel, type CutRole, prunableOf } from "./cut-model.ts";
import type { CutLockstepResult } from "./cut-run.ts";
import type { Damage } from "./damage.ts";
import { rescaledTypes } from "./rescaled-gains.ts";

/** The prompts of a proof; a certificate records the first. */
interface CutPrompts {
  readonly first: Prompt;
  readonly all: readonly (readonly number[])[];
}

interface CutProofRequest {
  readonly source: ModelWithScales;
  /** content root of the source */
  readonly root: string;
  readonly cut: Cut;
  /** the source as the cut sees it */
  readonly view: CutModel;
  readonly prompts: CutPrompts;
  readonly options: RunOptions;
}

interface CutProof {
  readonly proof: Proof;
  readonly damage: Damage | null;
}

/** Verifies a written checkpoint against its source. */
export async function proveCut(written: ModelWithScales, request: CutProofRequest): Promise<CutProof> {
  const { source, root, cut, view, prompts, options } = request;
  const watch = options.watch ?? ignoreEvents;
  const model = await readScaleValues(view.model); // scales of rows are cut with their weights
  const compared = await verifyModels(model, written, { ...options, verify: "bytes", strictScales: true });
  const { report } = compared;
  const leftOut = elementsLeftOut(source, view.roles);
  const derived = elementsDerived(source, cut, view.roles);
  const rungs = report.rungs.map((rung): RungReport => {
    if (rung.rung !== "cover" || !("settings" in rung.metrics)) return rung;
    return { ...rung, metrics: { ...rung.metrics, leftOut, ...(derived !== null && { derived }) } };
  });
  const isComparable = rungs.some(({ rung }) => rung === "bytes");
  const findings: Finding[] = [...report.findingDetails];
  if (!isComparable) {
    const proof = { ...compared, report: { ...report, rungs, roots: { ...report.roots, a: root } } };
    return { proof, damage: null };
  }
  watch({
    type: "phase",
    phase: "logits",
    totalBytes: runBytes(source, ["main", "mtp"]) + runBytes(written, ["main", "mtp"]),
  });
  await using backend = await backendFor(options);
  const rounder = await Rounder.create();
  const run = await runCutLockstep(source, written, cut, prompts.all, {
    ...{ backend, rounder, watch, memoryBytes: memoryOf(options), signal: options.signal },
  });
  const verdict = cutVerdict(run);
  watch({ type: "rung", rung: "logits", verdict });
  findings.push(...controlFindings(run.controls));
  for (const [what, count] of [
    ["masked source", run.logits.nonFiniteA] as const,
    ["pruned model", run.logits.nonFiniteB] as const,
  ])
    if (count > 0)
      findings.push(remark("logits-not-finite", `${count} logits of the ${what} are NaN or infinite`));
  const { layers, wiring, controls, flips } = run;
  rungs.push({
    rung: "logits",
    verdict,
    metrics: {
      ...run.logits,
      ...{ tokens: prompts.all.flat().length, layers, wiring, routing: { flips }, controls },
      unread: [...written.scales.unusedScales].sort(),
    },
  });
  const door = run.bad[0];
  const first = report.firstDivergence;
  const isEarlier = door !== undefined && (first === null || door.layer < first.layer);
  const proven: VerifyReport = {
    ...report,
    verdict: rungs.map((rung) => rung.verdict).reduce(worseVerdict),
    ...{ backend: backend.id, device: backend.device, rungs },
    firstDivergence: isEarlier
      ? { layer: door.layer, kind: door.kind, door: door.door, tensors: door.tensors }
      : first,
    limits: { wiring: wiring.limit },
    roots: { a: root, b: report.roots.b },
    ...reportedFindings(findings),
  };
  const { first: prompt } = prompts;
  return { proof: { ...compared, report: proven, prompt, fingerprint: run.fingerprint }, damage: run.damage };
}

/** A cut is not the same model: at best its verdict is `within`. Damage does not decide. */
function cutVerdict({
  bad,
  logits,
  controls,
}: Pick<CutLockstepResult, "bad" | "logits" | "controls">): Verdict {
  const isLost = logits.nonFiniteA === 0 && logits.nonFiniteB > 0;
  if (bad.length > 0 || isLost) return "different";
  if (logits.nonFiniteA > 0) return "unproven";
  if (controls.some(({ caught }) => caught === false)) return "unproven";
  return controls.some(({ caught, matrix }) => caught === true && matrix) ? "within" : "unproven";
}

/** Number of elements of the source that the cut leaves out, by role; roles that stay whole are not listed. */
function elementsLeftOut(source: LoadedModel, kept: readonly CutRole[]): Readonly<Record<string, number>> {
  const counts = new Map<string, number>();
  const add = (role: string, elements: number) => counts.set(role, (counts.get(role) ?? 0) + elements);
  for (const { spec, shape } of source.roles.values()) add(spec.role, countOf(shape));
  for (const { role } of kept) add(role.spec.role, -countOf(role.shape));
  return Object.fromEntries([...counts].filter(([, count]) => count !== 0));
}

/** Number of elements, by role, that are computed from the source and are not its bits; null: none are. */
function elementsDerived(
  source: LoadedModel,
  cut: Cut,
  kept: readonly CutRole[],
): Readonly<Record<string, number>> | null {
  const layers = rescaledTypes(source, cut);
  if (layers.size === 0) return null;
  const { mambaHeads: gain } = prunableOf(source).gain;
  const elements = kept
    .filter(({ from }) => from.spec.role === gain && layers.has(from.layer!.index))
    .reduce((sum, { role }) => sum + countOf(role.shape), 0);
  return { [gain]: elements };
}

interface CutRun {
  readonly backend: Backend;
  readonly rounder: WeightRounder;
  readonly memoryBytes: number;
  /** compare only this number of token ids; default all */
  readonly words?: number;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

async function runCutLockstep(
  storedSource: ModelWithScales,
  storedCut: ModelWithScales,
  cut: Cut,
  prompts: readonly (readonly number[])[],
  { backend, rounder, memoryBytes, words, watch, signal }: CutRun,
): Promise<CutLockstepResult> {
  const [source, pruned] = [decodeWeights(storedSource), decodeWeights(storedCut)];
  await using sourceFiles = new Sources(source.checkpoint.store);
  await using prunedFiles = new Sources(pruned.checkpoint.store);
  const bytes = partBytes(memoryBytes);
  const sequences = prompts.map(({ length }) => length);
  const tokens = sequences.reduce((sum, length) => sum + length, 0);
  const advance = (bytes: number) => watch({ type: "advance", phase: "logits", bytes });
  const common = {
    backend,
    tokens,
    sequences,
    roundings: new Map(),
    rounder,
    bandBytes: bytes,
    advance,
    signal,
  };
  const runners = [
    createRunner(source, { ...common, sources: sourceFiles }),
    createRunner(pruned, { ...common, sources: prunedFiles }),
  ] as const;
  const side = (model: ModelWithScales, i: 0 | 1) => ({
    ...{ runner: runners[i], dims: model.dims, layers: model.layers },
  });
  const result = await compareCut({
    ...{
      backend,
      forward: source.family.forward,
      cut,
      gains: rescaledTypes(storedSource, cut),
      prompts,
      blockBytes: bytes / 2,
      watch,
      signal,
    },
    ...{ source: side(source, 0), pruned: side(pruned, 1) },
    ...(words !== undefined && { words }),
  });
  for (const runner of runners) runner.close();
  return result;
}

/**
 * Refuses, before the first write, a cut that could not be proved afterwards.
 *
 * @param planned the destination, matched before its files exist
 * @throws UNSUPPORTED, PLAN_MEMORY with the number of bytes that would be enough
 */
export async function refuseUnprovable(
  source: LoadedModel,
  planned: LoadedModel,
  cut: Cut,
  prompts: CutPrompts,
  options: RunOptions,
): Promise<void> {
  for (const model of [source, planned]) refuseUnrunnable(model);
  const memoryBytes = memoryOf(options);
  const meter = createMeter(threadsOf(options));
  const tokens = prompts.all.flat().length;
  const words = Math.min(source.dims.vocab, blockWords(partBytes(memoryBytes) / 2, tokens));
  const [scaleValues, rounder] = [new Map(), { round() {} }];
  await runCutLockstep({ ...source, scaleValues }, { ...planned, scaleValues }, cut, prompts.all, {
    ...{ backend: meter, rounder, memoryBytes, words, watch: ignoreEvents, signal: options.signal },
  });
  const needed = meter.peakBytes;
  if (needed > ADDRESSABLE_BYTES) {
    const message = `the forward passes need ${needed} bytes of buffers; WebAssembly has ${ADDRESSABLE_BYTES}`;
    throw new IsologitError("PLAN_MEMORY", message, {}, { next: "give fewer `tokens`" });
  }
  if (needed <= memoryBytes) return;
  throw new IsologitError(
    "PLAN_MEMORY",
    `${memoryBytes} bytes of buffers are allowed; the forward passes need ${needed}`,
  );
}
