/** `verify`: the rungs, cheapest first, and the verdict they make together. */
import type { LogitsMetrics, RungReport, Verdict, VerifyOptions, VerifyReport } from "../api.ts";
import { DEFAULT_MEMORY_BYTES, Pool, poolSize } from "../convert/pool.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { bytesOf, countOf, type DType, isFloat } from "../core/dtype.ts";
import { unwatched } from "../core/events.ts";
import { Sources } from "../core/read.ts";
import type { Layer } from "../families/define.ts";
import type { Matched, Role } from "../families/match.ts";
import { openCheckpoint } from "../open.ts";
import { type BytesResult, compareBytes, storedAs } from "./bytes.ts";
import { compareSettings } from "./cover.ts";
import { exceeded, type Limits, limitsFor, looksTrained, wiringLimit } from "./limits.ts";
import { type LockstepResult, lockstep } from "./lockstep.ts";
import { promptIds } from "./prompts.ts";
import { Rounder, type Rounding } from "./rounding.ts";
import { backendFor, type Ready, ready, refuseUnrunnable, sideOf } from "./sides.ts";

/** Compares two checkpoints by address. @throws codes of exit status 3 and 4; a bad verdict is returned */
export async function verify(a: string, b: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  const [source, destination] = [
    await openCheckpoint(a, options.formats),
    await openCheckpoint(b, options.formats),
  ];
  return verifyCheckpoints(source, destination, options);
}

/** @throws UNSUPPORTED, USAGE for what the logits rung could not run; called before anything is written */
export function readiness(matched: Matched, level: "bytes" | "logits", options: VerifyOptions): void {
  if (level === "bytes") return;
  refuseUnrunnable(matched);
  promptIds(options, matched.dims.vocab!);
}

export async function verifyCheckpoints(
  a: Checkpoint,
  b: Checkpoint,
  options: VerifyOptions,
): Promise<VerifyReport> {
  const level = options.verify ?? "logits";
  const watch = options.watch ?? unwatched;
  const [source, destination] = [await ready(a, options), await ready(b, options)];
  readiness(source.matched, level, options);
  readiness(destination.matched, level, options);
  const rungs: RungReport[] = [];
  const add = (rung: RungReport) => {
    rungs.push(rung);
    watch({ type: "rung", rung: rung.rung, verdict: rung.verdict });
  };
  const bytes = [source, destination].reduce((sum, { matched }) => sum + storedBytes(matched), 0);
  watch({ type: "phase", phase: "verify", totalBytes: level === "logits" ? 2 * bytes : bytes });

  const settings = await compareSettings(source.matched, destination.matched);
  const elements = [...source.matched.roles.values()].reduce((sum, role) => sum + countOf(role.shape), 0);
  const covers = { roles: source.matched.roles.size, elements, tensors: b.tensors.length };
  add({
    rung: "cover",
    verdict: settings.differences.length > 0 ? "different" : "same",
    metrics: { ...covers, settings: settings.differences },
  });
  const findings = [...settings.findings];

  let compared: BytesResult | null = null;
  let run: LogitsRung | null = null;
  if (settings.comparable) {
    compared = await bytesRung(source, destination, options);
    findings.push(...compared.findings);
    add({ rung: "bytes", verdict: bytesVerdict(compared), metrics: bytesMetrics(compared) });
    if (level === "logits") {
      run = await logitsRung(source, destination, options);
      add({ rung: "logits", verdict: run.verdict, metrics: { ...run.metrics } });
      if (run.note !== null) findings.push(run.note);
    }
  }
  return {
    verdict: rungs.map((rung) => rung.verdict).reduce(worse),
    backend: run?.backend ?? null,
    device: run?.device ?? null,
    rungs,
    firstDivergence: firstDivergence(mainLayers(source.matched).length, compared, run),
    limits: run === null ? {} : { ...run.limits, wiring: run.metrics.wiring.limit },
    certificate: null,
    roots: { a: compared?.roots.a ?? null, b: compared?.roots.b ?? null },
    findings,
  };
}

const SEVERITY: readonly Verdict[] = ["same", "within", "unproven", "different"];

function mainLayers({ layers }: Matched): readonly Layer[] {
  return layers.filter(({ stack }) => stack === "main");
}

function worse(a: Verdict, b: Verdict): Verdict {
  return SEVERITY.indexOf(a) >= SEVERITY.indexOf(b) ? a : b;
}

function storedBytes({ checkpoint }: Matched): number {
  return checkpoint.tensors.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
}

async function bytesRung(a: Ready, b: Ready, options: VerifyOptions): Promise<BytesResult> {
  const watch = options.watch ?? unwatched;
  await using pool = new Pool(poolSize(options.memoryBytes ?? DEFAULT_MEMORY_BYTES, options.threads));
  const advance = (bytes: number) => watch({ type: "advance", phase: "verify", bytes });
  return await compareBytes({ a, b, pool, advance, signal: options.signal });
}

function bytesVerdict({ differences, recast }: BytesResult): Verdict {
  if (differences.length > 0) return "different";
  return recast > 0 ? "within" : "same";
}

function bytesMetrics({ compared, recast, bytes, differences }: BytesResult): Record<string, unknown> {
  return {
    roles: compared,
    recast,
    bytes,
    different: differences.length,
    // enough to see what happened; a scrambled checkpoint differs everywhere
    differences: differences
      .slice(0, 20)
      .map(({ role, tensors, message }) => ({ role: role.key, tensors, message })),
  };
}

interface LogitsRung {
  readonly verdict: Verdict;
  readonly backend: string;
  readonly device: string;
  readonly metrics: LogitsMetrics;
  readonly limits: Limits;
  readonly bad: LockstepResult["bad"];
  readonly note: string | null;
}

async function logitsRung(a: Ready, b: Ready, options: VerifyOptions): Promise<LogitsRung> {
  const watch = options.watch ?? unwatched;
  const { dims, family, roles, dialect } = a.matched;
  const ids = promptIds(options, dims.vocab!);
  const { signal } = options;
  await using backend = await backendFor(options);
  await using sourcesA = new Sources(a.matched.checkpoint.store);
  await using sourcesB = new Sources(b.matched.checkpoint.store);
  const { roundings, recastTo } = roundingsFor(a, b);
  const advance = (bytes: number) => watch({ type: "advance", phase: "verify", bytes });
  const common = { backend, tokens: ids.length, rounder: await Rounder.create(), advance, signal };
  const [sideA, sideB] = [
    sideOf(a, { ...common, sources: sourcesA, roundings }),
    sideOf(b, { ...common, sources: sourcesB, roundings: new Map() }),
  ];
  const result = await lockstep({
    backend,
    forward: family.forward,
    dims,
    layers: mainLayers(a.matched),
    ids,
    a: sideA,
    b: sideB,
    recast: recastTo.size > 0,
    limit: (terms) => wiringLimit(dialect.id === b.matched.dialect.id, terms),
    watch,
    signal,
  });
  sideA.close();
  sideB.close();
  const limits = limitsFor(recastTo, options);
  const trained = looksTrained(result.logits, ids.length, dims.vocab!);
  const unread = [
    ...new Set(
      [...roles.values()].filter((role) => role.layer?.stack === "mtp").map((role) => role.spec.role),
    ),
  ];
  return {
    verdict: logitsVerdict(result, recastTo.size > 0, trained && exceeded(result.logits, limits)),
    backend: backend.id,
    device: backend.device,
    metrics: {
      tokens: ids.length,
      ...result.logits,
      layers: result.layers,
      wiring: result.wiring,
      routing: { flips: 0 },
      unread: [...unread, ...b.unreadScales],
      controls: [],
    },
    limits,
    bad: result.bad,
    note:
      recastTo.size === 0 || trained
        ? null
        : "quality is reported, not judged: on these tokens the source predicts no better than chance",
  };
}

function logitsVerdict(result: LockstepResult, recast: boolean, tooFar: boolean): Verdict {
  if (result.bad.length > 0) return "different";
  if (!recast) return result.logits.maxAbs === 0 ? "same" : "different";
  return tooFar ? "different" : "within";
}

/** For each stored tensor of a, how b stores the role it holds, where that differs. */
function roundingsFor(
  a: Ready,
  b: Ready,
): { roundings: ReadonlyMap<string, Rounding>; recastTo: ReadonlySet<DType> } {
  const roundings = new Map<string, Rounding>();
  const recastTo = new Set<DType>();
  for (const role of a.matched.roles.values()) {
    const [from, to] = [storedAs(a, role), storedAs(b, role)];
    if (from.dtype === to.dtype || !isFloat(to.dtype)) continue;
    roundings.set(from.tensor, { to: to.dtype, scale: to.scale });
    recastTo.add(to.dtype);
  }
  return { roundings, recastTo };
}

/** Where a role lies in execution: -1 the embedding, the layers, then the head, then prediction layers. */
function depthOf({ layer, spec }: Role, layers: number): number {
  if (layer === null) return spec.kind === "embedding" ? -1 : layers;
  return layer.stack === "main" ? layer.index : layers + 1 + layer.index;
}

/** The lowest layer that is wrong, by its bytes, else by its wiring. */
function firstDivergence(
  layers: number,
  bytes: BytesResult | null,
  run: LogitsRung | null,
): VerifyReport["firstDivergence"] {
  const byBytes = (bytes?.differences ?? []).map((d) => ({ ...d, depth: depthOf(d.role, layers) }));
  const layer = Math.min(...byBytes.map(({ depth }) => depth));
  const door = run?.bad[0];
  if (door !== undefined && door.layer < layer)
    return { layer: door.layer, kind: door.kind, door: door.door, tensors: [] };
  const [first, ...others] = byBytes.filter(({ depth }) => depth === layer);
  if (first === undefined) return null;
  const tensors = [...new Set([first, ...others].flatMap((d) => d.tensors))];
  const kind = first.role.layer?.kind ?? (layer < 0 ? "embedding" : "head");
  return { layer, kind, ...(door?.layer === layer && { door: door.door }), tensors };
}
