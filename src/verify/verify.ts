/** `verify`: the rungs, cheapest first, and the verdict they make together. */
import { CERTIFIED, type CompareOptions, type VerifyOptions } from "../api/options.ts";
import type {
  BytesMetrics,
  ComparedTensor,
  Finding,
  RungReport,
  Verdict,
  VerifyReport,
} from "../api/reports.ts";
import type { Proof } from "../certificate/issue.ts";
import {
  contradictionOf,
  filesContradicting,
  type OwnCertificate,
  ownCertificate,
  refuseContradicted,
} from "../certificate/own-certificate.ts";
import { recheckCertificate } from "../certificate/recheck.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { refuseDamagedHeaders } from "../checkpoint/tensor-digests.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { countOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents } from "../core/events.ts";
import type { Role } from "../families/model.ts";
import { mainLayers } from "../families/model.ts";
import {
  memoryOf,
  type Paired,
  paired,
  type Ready,
  ready,
  refuseAbsentBackend,
  refuseUnrunnable,
  runBytes,
  storedRole,
} from "../inference/model-runner.ts";
import { type Prompt, promptOf } from "../inference/prompts.ts";
import { poolSize, WorkerPool } from "../workers/pool.ts";
import { type BytesResult, bytesToCompare, compareBytes, refuseUncomparable } from "./bytes/bytes.ts";
import { suspectsAmong } from "./diagnosis/suspects.ts";
import { difference, judgeFindings, remark, reportedFindings, verdictWith } from "./findings.ts";
import { givenLimits } from "./limits.ts";
import { type LogitsRung, logitsRung, refuseMemory } from "./logits.ts";
import { type ReferenceRung, referenceRung } from "./reference.ts";
import { compareSettings } from "./settings/settings.ts";
import { readLimits } from "./tolerance.ts";
import { divergenceFrom, executionDepth, kindOf, worseVerdict } from "./verdict.ts";

/**
 * Compares two checkpoints by address, or one with its certificate.
 *
 * @throws codes of exit status 2, 3 and 4; a bad verdict is returned
 */
export async function verify(
  ...[a, b, options = {}]:
    | [a: string, b: string | undefined, options?: CompareOptions]
    | [a: string, b?: undefined, options?: VerifyOptions]
): Promise<VerifyReport> {
  if (b === undefined) return recheckCertificate(a, options);
  refuseCertified(options);
  const [source, destination] = [
    await openCheckpoint(a, options.formats, { ...options, keep: true }),
    await openCheckpoint(b, options.formats, { ...options, keep: true }),
  ];
  const certificates = { a: await ownCertificate(a, source), b: await ownCertificate(b, destination) };
  const { report } = await prove(source, destination, options, false, certificates);
  // A verdict is of files as they were at one time: those that the first rung read are still the same.
  for (const { store } of [source, destination]) await store.refuseChanged?.();
  return report;
}

/** @throws USAGE: a B was given, and an option that needs a certificate */
function refuseCertified(options: VerifyOptions): void {
  const asked = CERTIFIED.find((name) => options[name] !== undefined);
  if (asked === undefined) return;
  throw new IsologitError("USAGE", `\`${asked}\` is for verify A alone, and B was given`);
}

/**
 * Refuses, before anything is written, what `verifyCheckpoints` would refuse after it.
 *
 * @param destination as planned: its tensors need names, types and shapes, but no bytes yet
 * @throws UNSUPPORTED, SCALE_INVALID, USAGE, PLAN_MEMORY
 */
export async function refuseUnverifiable(
  source: Checkpoint,
  destination: Checkpoint,
  options: VerifyOptions,
): Promise<void> {
  await refuse(await ready(source, options), paired(destination, options), options);
}

/** @returns what the forward passes will read; null where there are none */
async function refuse(a: Paired, b: Paired, options: VerifyOptions): Promise<Prompt | null> {
  await readLimits(options);
  poolSize(memoryOf(options), options.threads);
  refuseUncomparable(a, b);
  if (options.verify === "bytes") return null;
  await refuseAbsentBackend(options);
  refuseUnrunnable(a);
  refuseUnrunnable(b);
  const { checkpoint, dims } = a.matched;
  const prompt = await promptOf(options, checkpoint, dims.vocab);
  await refuseMemory(a, b, options, prompt.ids);
  return prompt;
}

/** @param own b was just converted from a by this version: nothing that another tool may choose is let pass */
export async function verifyCheckpoints(
  a: Checkpoint,
  b: Checkpoint,
  options: VerifyOptions,
  own = false,
): Promise<VerifyReport> {
  return (await prove(a, b, options, own)).report;
}

/** What is known of two sides before they are read. */
interface Certificates {
  readonly a?: OwnCertificate | null;
  readonly b?: OwnCertificate | null;
}

/**
 * As `verifyCheckpoints`, with all that a certificate needs.
 *
 * @param certificates of the sides, where they have any: what contradicts one is a finding
 * @throws CERTIFICATE_CONTRADICTED, where b was just converted from an a that is not what its certificate says
 */
export async function prove(
  a: Checkpoint,
  b: Checkpoint,
  options: VerifyOptions,
  own: boolean,
  certificates: Certificates = {},
): Promise<Proof> {
  const watch = options.watch ?? ignoreEvents;
  const [source, destination] = [await ready(a, options), await ready(b, options)];
  for (const side of [a, b]) await refuseDamagedHeaders(side, options.signal);
  const settings = await compareSettings(source, destination);
  const comparable = settings.unlike === null;
  const asked = comparable ? await refuse(source, destination, options) : null;
  const unlikeStreams = asked === null ? [] : streamsUnlike(source, destination);
  const prompt = unlikeStreams.length === 0 ? asked : null;
  const sides = [source.matched, destination.matched];
  const totalBytes =
    (comparable ? bytesToCompare(source, destination) : 0) +
    (prompt !== null ? sides.reduce((sum, matched) => sum + runBytes(matched, ["main", "mtp"]), 0) : 0);
  watch({ type: "phase", phase: "verify", totalBytes });

  const rungs: RungReport[] = [];
  const findings: Finding[] = [];
  const add = (rung: RungReport, found: readonly Finding[] = []) => {
    const judged = judgeFindings(found, options.strict);
    findings.push(...judged);
    const verdict = verdictWith(rung.verdict, judged);
    rungs.push({ ...rung, verdict });
    watch({ type: "rung", rung: rung.rung, verdict });
  };
  const elements = [...source.matched.roles.values()].reduce((sum, role) => sum + countOf(role.shape), 0);
  const covers = { roles: source.matched.roles.size, elements, tensors: b.tensors.length };
  const covered = settings.unjudged === null ? "same" : "unproven";
  const verdict = comparable && settings.differences.length === 0 ? covered : "different";
  const metrics = { ...covers, settings: settings.differences };
  add({ rung: "cover", verdict, metrics }, settings.findings);

  let compared: BytesResult | null = null;
  let run: LogitsRung | null = null;
  if (comparable) {
    compared = await bytesRung(source, destination, options, own);
    const bytes: RungReport = {
      rung: "bytes",
      verdict: bytesVerdict(compared),
      metrics: bytesMetrics(compared),
    };
    const content = {
      a: { leaves: compared.leavesA, root: compared.roots.a },
      b: { leaves: compared.leaves, root: compared.roots.b },
    };
    const contradictions = [["a", source] as const, ["b", destination] as const].flatMap(
      ([side, { matched }]) => {
        const certificate = certificates[side];
        return certificate == null ? [] : (contradictionOf(certificate, matched, content[side]) ?? []);
      },
    );
    if (own && contradictions[0] !== undefined) refuseContradicted(contradictions[0]);
    const contradicted = contradictions.map(({ message, at }) =>
      difference("certificate-contradicted", message, at),
    );
    for (const [certificate, side] of [
      [certificates.a, source] as const,
      [certificates.b, destination] as const,
    ]) {
      if (certificate == null) continue;
      contradicted.push(
        ...certificate.findings,
        ...(await filesContradicting(certificate, side, options.signal)),
      );
    }
    add(bytes, [...compared.findings, ...contradicted]);
  }
  if (prompt !== null) {
    run = await logitsRung(source, destination, await readLimits(options), prompt);
    add({ rung: "logits", verdict: run.verdict, metrics: run.metrics }, run.findings);
  }
  if (unlikeStreams.length > 0) {
    const message = `the settings give streams other widths (${unlikeStreams.join(", ")}): no forward pass ran`;
    findings.push(remark("logits-unlike", message));
  }
  const reference =
    options.reference === undefined || !comparable
      ? null
      : await referenceRung(source, options.reference, options);
  if (reference !== null) add(reference.rung);
  const { first, suspects } = await firstDivergence(
    source,
    destination,
    settings.unlike,
    compared,
    run,
    reference,
  );
  findings.push(...suspects);
  const unjudged = run === null ? Object.keys(givenLimits(await readLimits(options))) : [];
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
    certificate: null,
    roots: { a: compared?.roots.a ?? null, b: compared?.roots.b ?? null },
    ...reportedFindings(findings),
    ...(compared !== null && { tensors: tensorsOf(source, destination, compared) }),
  };
  const [leaves, fingerprint] = [compared?.leaves ?? null, run?.fingerprint ?? null];
  return { report, source, destination, leaves, prompt, fingerprint };
}

/** Streams that a setting, and no weight, makes wider on one side, as `num_experts_per_tok` does: not to be run in step. */
function streamsUnlike({ matched: a }: Paired, { matched: b }: Paired): readonly string[] {
  const [left, right] = [a, b].map(({ family, dims }) => family.forward.streams(dims));
  return Object.keys(left!).filter((name) => left![name] !== right![name]);
}

async function bytesRung(a: Ready, b: Ready, options: VerifyOptions, own: boolean): Promise<BytesResult> {
  const watch = options.watch ?? ignoreEvents;
  await using pool = new WorkerPool(poolSize(memoryOf(options), options.threads));
  const advance = (bytes: number) => watch({ type: "advance", phase: "verify", bytes });
  return await compareBytes({ a, b, pool, own, advance, signal: options.signal });
}

function tensorsOf(a: Ready, b: Ready, { differences }: BytesResult): readonly ComparedTensor[] {
  const layers = mainLayers(a.matched).length;
  const different = new Set(differences.map(({ key }) => key));
  return [...a.matched.roles.values()].map((role) => {
    const [from, to] = [storedRole(a, role), storedRole(b, role)];
    const kept = from.dtype === to.dtype ? "same" : "rounded";
    return {
      role: role.spec.role,
      layer: role.layer === null ? null : executionDepth(role, layers),
      a: from.tensor,
      b: to.tensor,
      dtypeA: from.dtype,
      dtypeB: to.dtype,
      outcome: different.has(role.key) ? "different" : kept,
    };
  });
}

function bytesVerdict({ differences, recast }: BytesResult): Verdict {
  if (differences.length > 0) return "different";
  return recast > 0 ? "within" : "same";
}

function bytesMetrics({ compared, recast, bytes, differences }: BytesResult): BytesMetrics {
  return {
    roles: compared,
    recast,
    bytes,
    different: differences.length,
    // enough to see what happened; a scrambled checkpoint differs everywhere
    differences: differences
      .slice(0, 20)
      .map(({ key, tensors, message }) => ({ role: key, tensors, message })),
  };
}

/** The lowest layer that is wrong, in shape, else by its bytes or its wiring; its tensors by suspicion. */
async function firstDivergence(
  a: Ready,
  b: Ready,
  unlike: Role | null,
  bytes: BytesResult | null,
  run: LogitsRung | null,
  reference: ReferenceRung | null,
): Promise<{ first: VerifyReport["firstDivergence"]; suspects: readonly Finding[] }> {
  const layers = mainLayers(a.matched).length;
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
    return { first: divergenceFrom(reference?.firstLayer ?? null, a.matched), suspects: [] };
  }
  const suspects = await suspectsAmong(found, bytes, a, b);
  // every tensor of the layer, those that were not looked at last
  const tensors = [...new Set([...suspects, ...found].flatMap((one) => one.tensors))];
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
