/** Compares two models: runs the rungs, cheapest first, and combines their verdicts. */
import { isSameForm, type LoadedModel, type ModelWithScales, storedRole } from "../checkpoint/load.ts";
import { refuseDamagedHeaders } from "../checkpoint/tensor-digests.ts";
import type { Leaf } from "../core/content-root.ts";
import { countOf } from "../core/dtype.ts";
import { ignoreEvents } from "../core/events.ts";
import { type Finding, remark } from "../core/finding.ts";
import { mainLayers, type Role } from "../families/model.ts";
import { memoryOf, refuseAbsentBackend } from "../inference/machine.ts";
import { refuseUnrunnable, runBytes } from "../inference/model-runner.ts";
import { type Prompt, promptOf } from "../inference/prompts.ts";
import { poolSize, WorkerPool } from "../workers/pool.ts";
import { type BytesResult, bytesToCompare, compareBytes, refuseUncomparable } from "./bytes/bytes.ts";
import type { RoleDifference } from "./bytes/compared-items.ts";
import type { BytesOptions, Comparisons } from "./bytes/pieces.ts";
import { suspectsAmong } from "./diagnosis/suspects.ts";
import { judgeFindings, reportedFindings, verdictWith } from "./judge-findings.ts";
import { givenLimits, readLimits } from "./limits.ts";
import { type BegunLayers, type LogitsKnowledge, type LogitsRung, logitsRung } from "./logits.ts";
import type { CompareOptions } from "./options.ts";
import { recastDtypes } from "./recast-source.ts";
import { type ReferenceRung, referenceRung } from "./reference.ts";
import type {
  BytesMetrics,
  ComparedTensor,
  Proof,
  RungReport,
  TensorDifference,
  Verdict,
  VerifyReport,
} from "./report.ts";
import { compareSettings, type SettingsComparison, streamsUnlike } from "./settings/settings.ts";
import { neededBytes, refuseMemory } from "./side-by-side.ts";
import { divergenceFrom, executionDepth, kindOf, worseVerdict } from "./verdict.ts";

export interface VerifyModelsOptions extends CompareOptions {
  /** `b` was just converted from `a` by this version: its scales must equal the scales that this version writes */
  readonly strictScales?: boolean;
  /** result of `prepareVerification`; default: computed here */
  readonly prepared?: Preparation;
  /** comparisons of the same bytes that other processes made: the bytes rung reads only the rest */
  readonly known?: Comparisons | undefined;
  /** the forward passes of other processes: the logits rung goes on with them */
  readonly begunBy?: BegunLayers | undefined;
  /** returns findings about the content that the bytes rung read, such as contradictions to an older certificate */
  readonly inspectContent?: (content: VerifiedContent) => Promise<readonly Finding[]>;
}

/** The facts that a verification needs before it reads elements. */
export interface Preparation {
  /** the options, with the limits of the tolerance file */
  readonly options: CompareOptions;
  /** prompt of the forward passes; null where no forward pass runs */
  readonly prompt: Prompt | null;
}

/** A model and its content root, computed by the bytes rung. */
export interface ModelContent {
  readonly model: ModelWithScales;
  readonly leaves: readonly Leaf[];
  readonly root: string;
}

export interface VerifiedContent {
  readonly a: ModelContent;
  readonly b: ModelContent;
}

/**
 * Refuses models that cannot be verified, and reads the limits and the prompt. Tensor elements are not read.
 *
 * @param b may be a planned model: its tensors need names, dtypes and shapes; their bytes need not exist yet
 * @throws UNSUPPORTED, SCALE_INVALID, USAGE, NOT_AVAILABLE, PLAN_MEMORY
 */
export async function prepareVerification(
  a: LoadedModel,
  b: LoadedModel,
  options: CompareOptions,
): Promise<Preparation> {
  const limited = await readLimits(options);
  poolSize(memoryOf(options), options.threads);
  refuseUncomparable(a, b);
  if (options.verify === "bytes") return { options: limited, prompt: null };
  await refuseAbsentBackend(options);
  refuseUnrunnable(a);
  refuseUnrunnable(b);
  const purpose = isQualityJudged(a, b, limited) ? "quality" : "wiring";
  const prompt = await promptOf(options, a.checkpoint, a.dims.vocab, purpose);
  await refuseMemory(a, b, options, prompt.ids);
  return { options: limited, prompt };
}

/** Where nothing is recast, a right destination computes the same bits: few tokens show whether it does. */
function isQualityJudged(a: LoadedModel, b: LoadedModel, options: CompareOptions): boolean {
  return recastDtypes(a, b).size > 0 || Object.keys(givenLimits(options)).length > 0;
}

/**
 * Compares two models: runs the rungs, cheapest first, and combines their verdicts.
 *
 * @param a the source
 * @param b the destination
 * @returns the report, and everything that a certificate needs; a bad verdict is a result and not an error
 * @throws the errors of `prepareVerification`, of reading, and of the forward passes
 */
export async function verifyModels(
  a: ModelWithScales,
  b: ModelWithScales,
  { strictScales = false, prepared, known, begunBy, inspectContent, ...options }: VerifyModelsOptions,
): Promise<Proof> {
  const watch = options.watch ?? ignoreEvents;
  for (const { checkpoint } of [a, b]) await refuseDamagedHeaders(checkpoint, options.signal);
  const settings = await compareSettings(a, b, strictScales);
  const comparable = settings.unlike === null;
  if (comparable) refuseUncomparable(a, b);
  const { options: limited, prompt: requestedPrompt } =
    prepared ??
    (comparable
      ? await prepareVerification(a, b, options)
      : { options: await readLimits(options), prompt: null });
  const unlikeStreams = comparable && requestedPrompt !== null ? streamsUnlike(a, b) : [];
  const prompt = comparable && unlikeStreams.length === 0 ? requestedPrompt : null;
  watch({ type: "phase", phase: "verify" });

  const rungs: RungReport[] = [];
  const findings: Finding[] = [];
  const add = <R extends RungReport>(rung: R, found: readonly Finding[] = []) => {
    const judged = judgeFindings(found, options.strict);
    findings.push(...judged);
    const verdict = verdictWith(rung.verdict, judged);
    rungs.push({ ...rung, verdict });
    watch({ type: "rung", rung: rung.rung, verdict });
  };
  add(coverRung(a, b, settings), settings.findings);

  const early = prompt === null ? null : await earlyLogits(a, b, limited, prompt, begunBy);
  let compared: BytesResult | null = null;
  let run: PromptedRung | null = null;
  if (comparable) {
    compared = await runBytesRung(a, b, options, { strictScales, known, equal: early?.run?.equal });
    const content = {
      a: { model: a, leaves: compared.leavesA, root: compared.roots.a },
      b: { model: b, leaves: compared.leaves, root: compared.roots.b },
    };
    const inspected = (await inspectContent?.(content)) ?? [];
    const { verdict, metrics } = { verdict: bytesVerdict(compared), metrics: bytesMetrics(compared) };
    add({ rung: "bytes", verdict, metrics }, [...compared.findings, ...inspected]);
  }
  if (prompt !== null && compared !== null) {
    run = await provenLogits(a, b, limited, prompt, compared, early, begunBy);
    add({ rung: "logits", verdict: run.verdict, metrics: run.metrics }, run.findings);
  }
  if (unlikeStreams.length > 0) {
    const message = `the settings give streams other widths (${unlikeStreams.join(", ")}): no forward pass ran`;
    findings.push(remark("logits-unlike", message));
  }
  const reference =
    options.reference === undefined || !comparable
      ? null
      : await referenceRung(a, options.reference, options);
  if (reference !== null) add(reference.rung);
  const { first, suspects } = await firstDivergence(a, b, settings.unlike, compared, run, reference);
  findings.push(...suspects);
  const unjudged = run === null ? Object.keys(givenLimits(limited)) : [];
  if (unjudged.length > 0) {
    const message = `no forward pass ran: the limits that were given (${unjudged.join(", ")}) were not judged`;
    findings.push(remark("limit-unjudged", message));
  }
  const verdicts = [...rungs.map(({ verdict }) => verdict), ...unjudged.map((): Verdict => "unproven")];
  const report: VerifyReport = {
    verdict: verdicts.reduce(worseVerdict),
    backend: run?.backend ?? reference?.backend ?? null,
    device: run?.device ?? reference?.device ?? null,
    rungs,
    firstDivergence: first,
    limits: run === null ? {} : { ...run.limits, wiring: run.metrics.wiring.limit },
    ...(run !== null && run.unjudged.length > 0 && { unjudged: run.unjudged }),
    certificate: null,
    roots: { a: compared?.roots.a ?? null, b: compared?.roots.b ?? null },
    ...reportedFindings(findings),
    ...(compared !== null && compared.known > 0 && { comparedByTasks: compared.known }),
    ...(run !== null && run.layersKnown > 0 && { layersByTasks: run.layersKnown }),
    ...(compared !== null && { tensors: comparedTensors(a, b, compared) }),
  };
  const [leaves, fingerprint] = [compared?.leaves ?? null, run?.fingerprint ?? null];
  return { report, source: a, destination: b, leaves, prompt: run?.prompt ?? prompt, fingerprint };
}

/** The logits rung, with its prompt. */
type PromptedRung = LogitsRung & { readonly prompt: Prompt };

/** The logits rung that ran before the bytes rung; `error`: what stopped it. */
type EarlyRun = { readonly run: PromptedRung } | { readonly run?: never; readonly error: unknown };

/**
 * Runs the logits rung before the bytes rung, so that one reading serves both; null where something is recast, because then it
 * needs results of the bytes rung. Its error is reported after those of the bytes rung, which name damaged bytes.
 */
async function earlyLogits(
  a: ModelWithScales,
  b: ModelWithScales,
  options: CompareOptions,
  prompt: Prompt,
  begunBy: BegunLayers | undefined,
): Promise<EarlyRun | null> {
  if (recastDtypes(a, b).size > 0) return null;
  return await promptedRung(a, b, options, prompt, { digests: true, begunBy }).then(
    (run) => ({ run }),
    (error: unknown) => ({ error }),
  );
}

async function promptedRung(
  a: ModelWithScales,
  b: ModelWithScales,
  options: CompareOptions,
  prompt: Prompt,
  known: LogitsKnowledge,
): Promise<PromptedRung> {
  const totalBytes = runBytes(a, ["main", "mtp"]) + runBytes(b, ["main", "mtp"]);
  options.watch?.({ type: "phase", phase: "logits", totalBytes });
  return { ...(await logitsRung(a, b, options, prompt, known)), prompt };
}

/**
 * The result of the logits rung: of the early run, else of a run now. On a longer prompt where bytes differ, or where a short
 * one by default could not show every fault.
 */
async function provenLogits(
  a: ModelWithScales,
  b: ModelWithScales,
  options: CompareOptions,
  prompt: Prompt,
  { differences, notNearest }: BytesResult,
  early: EarlyRun | null,
  begunBy: BegunLayers | undefined,
): Promise<PromptedRung> {
  if (early !== null && "error" in early) throw early.error;
  const run = (used: Prompt) => promptedRung(a, b, options, used, { notNearest, begunBy });
  const first = early?.run ?? (differences.length === 0 ? await run(prompt) : null);
  if (first !== null && first.verdict !== "unproven" && differences.length === 0) return first;
  const longer = await promptOf(options, a.checkpoint, a.dims.vocab);
  const isLonger = longer.ids.length > prompt.ids.length;
  const fits = isLonger && (await neededBytes(a, b, options, longer.ids)) <= memoryOf(options);
  return fits ? await run(longer) : (first ?? (await run(prompt)));
}

function coverRung(a: LoadedModel, b: LoadedModel, settings: SettingsComparison): RungReport {
  const elements = [...a.roles.values()].reduce((sum, role) => sum + countOf(role.shape), 0);
  const verdictOfFiles = settings.unjudged === null ? "same" : "unproven";
  const isSame = settings.unlike === null && settings.differences.length === 0;
  const metrics = {
    roles: a.roles.size,
    elements,
    tensors: b.checkpoint.tensors.length,
    settings: settings.differences,
  };
  return { rung: "cover", verdict: isSame ? verdictOfFiles : "different", metrics };
}

async function runBytesRung(
  a: ModelWithScales,
  b: ModelWithScales,
  options: CompareOptions,
  found: Pick<BytesOptions, "strictScales" | "known" | "equal">,
): Promise<BytesResult> {
  const watch = options.watch ?? ignoreEvents;
  await using pool = new WorkerPool(poolSize(memoryOf(options), options.threads), watch);
  watch({ type: "phase", phase: "bytes", totalBytes: bytesToCompare(a, b) });
  const { signal } = options;
  return await compareBytes({ a, b, pool, ...found, phase: "bytes", watch, signal });
}

/** The roles of two models, and what the bytes rung found out about each. */
export function comparedTensors(
  a: LoadedModel,
  b: LoadedModel,
  { differences, errors }: Pick<BytesResult, "differences" | "errors">,
): readonly ComparedTensor[] {
  const layers = mainLayers(a).length;
  const different = new Set(differences.map(({ key }) => key));
  return [...a.roles.values()].map((role) => {
    const [from, to] = [storedRole(a, role), storedRole(b, role)];
    const outcome = isSameForm(from, to) ? "same" : "rounded";
    const error = errors.get(role.key);
    return {
      role: role.spec.role,
      layer: role.layer === null ? null : executionDepth(role, layers),
      a: from.tensor,
      b: to.tensor,
      dtypeA: from.dtype,
      dtypeB: to.dtype,
      outcome: different.has(role.key) ? "different" : outcome,
      ...(error !== undefined && { error }),
    };
  });
}

function bytesVerdict({ differences, recast }: BytesResult): Verdict {
  if (differences.length > 0) return "different";
  return recast > 0 ? "within" : "same";
}

export function tensorDifferences(differences: readonly RoleDifference[]): readonly TensorDifference[] {
  return differences.map(({ key, tensors, message }) => ({ role: key, tensors, message }));
}

function bytesMetrics({ compared, recast, bytes, differences, error }: BytesResult): BytesMetrics {
  return {
    roles: compared,
    recast,
    bytes,
    different: differences.length,
    // 20 show the kind of fault; in a scrambled checkpoint every role differs
    differences: tensorDifferences(differences.slice(0, 20)),
    ...(error !== null && { error }),
  };
}

/** The first layer that differs: in shape, else in bytes or wiring. Its tensors are ordered by suspicion. */
async function firstDivergence(
  a: ModelWithScales,
  b: ModelWithScales,
  unlike: Role | null,
  bytes: BytesResult | null,
  run: LogitsRung | null,
  reference: ReferenceRung | null,
): Promise<{ first: VerifyReport["firstDivergence"]; suspects: readonly Finding[] }> {
  const layers = mainLayers(a).length;
  if (unlike !== null) {
    return {
      first: { layer: executionDepth(unlike, layers), kind: kindOf(unlike), tensors: [] },
      suspects: [],
    };
  }
  const byBytes = (bytes?.differences ?? []).map((d) => ({ ...d, depth: executionDepth(d.role, layers) }));
  const layer = Math.min(...byBytes.map(({ depth }) => depth));
  const door = run?.bad[0];
  if (door !== undefined && door.layer < layer) {
    const { kind, tensors } = door;
    return { first: { layer: door.layer, kind, door: door.door, tensors }, suspects: [] };
  }
  const found = byBytes.filter(({ depth }) => depth === layer);
  if (bytes === null || found.length === 0) {
    return { first: divergenceFrom(reference?.firstLayer ?? null, a), suspects: [] };
  }
  const suspects = await suspectsAmong(found, bytes, a, b);
  // all tensors of the layer; tensors that were not analysed come last
  const tensors = [...new Set([...suspects, ...found].flatMap((entry) => entry.tensors))];
  const first = {
    layer,
    kind: kindOf(found[0]!.role),
    ...(door?.layer === layer && { door: door.door }),
    tensors,
  };
  const remarks = suspects.map(({ text, tensors }) => {
    return remark("suspect", `suspect ${text}`, { tensor: tensors.at(-1)! });
  });
  return { first, suspects: remarks };
}
