/** `verify`: the rungs, cheapest first, and the verdict they make together. */
import type { RungReport, Verdict, VerifyOptions, VerifyReport } from "../api.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { countOf } from "../core/dtype.ts";
import { unwatched } from "../core/events.ts";
import type { Role } from "../families/match.ts";
import { Pool, poolSize } from "../lanes/pool.ts";
import { openCheckpoint } from "../open.ts";
import { type BytesResult, bytesToCompare, compareBytes, refuseUncomparable } from "./bytes.ts";
import { compareSettings } from "./cover.ts";
import { type LogitsRung, logitsRung, mainLayers, refuseMemory } from "./logits-rung.ts";
import { promptIds } from "./prompts.ts";
import { memoryOf, type Paired, paired, type Ready, ready, refuseUnrunnable, runBytes } from "./sides.ts";

/** Compares two checkpoints by address. @throws codes of exit status 2, 3 and 4; a bad verdict is returned */
export async function verify(a: string, b: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  const [source, destination] = [
    await openCheckpoint(a, options.formats, { keep: true, watch: options.watch }),
    await openCheckpoint(b, options.formats, { keep: true, watch: options.watch }),
  ];
  return verifyCheckpoints(source, destination, options);
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

async function refuse(a: Paired, b: Paired, options: VerifyOptions): Promise<void> {
  poolSize(memoryOf(options), options.threads);
  refuseUncomparable(a, b);
  if (options.verify === "bytes") return;
  refuseUnrunnable(a);
  refuseUnrunnable(b);
  promptIds(options, a.matched.dims.vocab!);
  await refuseMemory(a, b, options);
}

/** @param own b was just converted from a by this version: nothing that another tool may choose is let pass */
export async function verifyCheckpoints(
  a: Checkpoint,
  b: Checkpoint,
  options: VerifyOptions,
  own = false,
): Promise<VerifyReport> {
  const runs = options.verify !== "bytes";
  const watch = options.watch ?? unwatched;
  const [source, destination] = [await ready(a, options), await ready(b, options)];
  const settings = await compareSettings(source, destination);
  const comparable = settings.unlike === null;
  if (comparable) await refuse(source, destination, options);
  const sides = [source.matched, destination.matched];
  const totalBytes =
    (comparable ? bytesToCompare(source, destination) : 0) +
    (comparable && runs ? sides.reduce((sum, matched) => sum + runBytes(matched), 0) : 0);
  watch({ type: "phase", phase: "verify", totalBytes });

  const rungs: RungReport[] = [];
  const add = (rung: RungReport) => {
    rungs.push(rung);
    watch({ type: "rung", rung: rung.rung, verdict: rung.verdict });
  };
  const elements = [...source.matched.roles.values()].reduce((sum, role) => sum + countOf(role.shape), 0);
  const covers = { roles: source.matched.roles.size, elements, tensors: b.tensors.length };
  add({
    rung: "cover",
    verdict: comparable && settings.differences.length === 0 ? "same" : "different",
    metrics: { ...covers, settings: settings.differences },
  });
  const findings = [...settings.findings];

  let compared: BytesResult | null = null;
  let run: LogitsRung | null = null;
  if (comparable) {
    compared = await bytesRung(source, destination, options, own);
    findings.push(...compared.findings);
    add({ rung: "bytes", verdict: bytesVerdict(compared), metrics: bytesMetrics(compared) });
  }
  if (comparable && runs) {
    run = await logitsRung(source, destination, options);
    findings.push(...run.findings);
    add({ rung: "logits", verdict: run.verdict, metrics: { ...run.metrics } });
  }
  return {
    verdict: rungs.map((rung) => rung.verdict).reduce(worse),
    backend: run?.backend ?? null,
    device: run?.device ?? null,
    rungs,
    firstDivergence: firstDivergence(mainLayers(source.matched).length, settings.unlike, compared, run),
    limits: run === null ? {} : { ...run.limits, wiring: run.metrics.wiring.limit },
    certificate: null,
    roots: { a: compared?.roots.a ?? null, b: compared?.roots.b ?? null },
    findings,
  };
}

const SEVERITY: readonly Verdict[] = ["same", "within", "unproven", "different"];

function worse(a: Verdict, b: Verdict): Verdict {
  return SEVERITY.indexOf(a) >= SEVERITY.indexOf(b) ? a : b;
}

async function bytesRung(a: Ready, b: Ready, options: VerifyOptions, own: boolean): Promise<BytesResult> {
  const watch = options.watch ?? unwatched;
  await using pool = new Pool(poolSize(memoryOf(options), options.threads));
  const advance = (bytes: number) => watch({ type: "advance", phase: "verify", bytes });
  return await compareBytes({ a, b, pool, own, advance, signal: options.signal });
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
      .map(({ key, tensors, message }) => ({ role: key, tensors, message })),
  };
}

/** Where a role lies in execution: -1 the embedding, the layers, then the head, then prediction layers. */
function depthOf(role: Role | null, layers: number): number {
  if (role === null) return layers;
  const { layer, spec } = role;
  if (layer === null) return spec.kind === "embedding" ? -1 : layers;
  return layer.stack === "main" ? layer.index : layers + 1 + layer.index;
}

/** The lowest layer that is wrong: in shape, else by its bytes or its wiring. */
function firstDivergence(
  layers: number,
  unlike: Role | null,
  bytes: BytesResult | null,
  run: LogitsRung | null,
): VerifyReport["firstDivergence"] {
  if (unlike !== null) return { layer: depthOf(unlike, layers), kind: kindOf(unlike), tensors: [] };
  const byBytes = (bytes?.differences ?? []).map((d) => ({ ...d, depth: depthOf(d.role, layers) }));
  const layer = Math.min(...byBytes.map(({ depth }) => depth));
  const door = run?.bad[0];
  if (door !== undefined && door.layer < layer)
    return { layer: door.layer, kind: door.kind, door: door.door, tensors: [] };
  const first = byBytes.filter(({ depth }) => depth === layer);
  if (first.length === 0) return null;
  const tensors = [...new Set(first.flatMap((d) => d.tensors))];
  return { layer, kind: kindOf(first[0]!.role), ...(door?.layer === layer && { door: door.door }), tensors };
}

function kindOf(role: Role | null): string {
  return role?.layer?.kind ?? (role?.spec.kind === "embedding" ? "embedding" : "head");
}
