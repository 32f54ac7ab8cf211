/** The bytes rung: reads both sides by role and compares every item. The result has the content roots of both sides. */
import {
  isSameForm,
  type LoadedModel,
  type ModelWithScales,
  storedRole,
  withDecodedValues,
} from "../../checkpoint/load.ts";
import type { Tensor } from "../../core/checkpoint.ts";
import { contentRoot, type Leaf } from "../../core/content-root.ts";
import { bytesOf, isFloat } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import type { Finding } from "../../core/finding.ts";
import { remark } from "../../core/finding.ts";
import { findFirstDifference } from "../../core/first-difference.ts";
import { Sources } from "../../core/read.ts";
import { sealFinder } from "../../core/sealed-spans.ts";
import { replicaError } from "../../families/match.ts";
import type { MatchedModel, Replica } from "../../families/model.ts";
import type { BandWorker, WorkerPool } from "../../workers/pool.ts";
import {
  type ComparedItem,
  comparedItem,
  leafOf,
  type RoleDifference,
  roleDifference,
} from "./compared-items.ts";
import { type EmptyRole, emptyRoleFindings } from "./empty-roles.ts";
import { ItemComparison } from "./item-comparison.ts";
import { errorOf, type RecastError, type TensorError } from "./recast-error.ts";
import { judgeLoss, judgeScale, type RecastRole } from "./scales.ts";
import { compareUnusedScales } from "./unused-scales.ts";

export interface BytesResult {
  readonly roots: { readonly a: string; readonly b: string };
  /** leaves of a */
  readonly leavesA: readonly Leaf[];
  /** leaves of b */
  readonly leaves: readonly Leaf[];
  readonly compared: number;
  readonly recast: number;
  readonly bytes: number;
  /** in order of execution; scales that no role reads come last */
  readonly differences: readonly RoleDifference[];
  /** for each recast role, how far it is from the role of a */
  readonly errors: ReadonlyMap<string, TensorError>;
  /** the errors of all recast roles together; null if there are none */
  readonly error: RecastError | null;
  /** roles of b with codes that are not the nearest ones */
  readonly notNearest: ReadonlySet<string>;
  /** findings that do not change the verdict */
  readonly findings: readonly Finding[];
}

interface BytesOptions {
  readonly a: ModelWithScales;
  readonly b: ModelWithScales;
  readonly pool: WorkerPool;
  /** b was written by this version from a: scales must equal amax / max. Other tools may choose larger scales */
  readonly strictScales: boolean;
  readonly advance: (bytes: number) => void;
  readonly signal: AbortSignal | undefined;
}

/** Number of bytes that the rung reads, both sides. */
export function bytesToCompare(a: LoadedModel, b: LoadedModel): number {
  const size = ({ dtype, shape }: Pick<Tensor, "dtype" | "shape">) => bytesOf(dtype, shape);
  const roles = [...a.roles.values()].map((role) => {
    const [from, to] = [storedRole(a, role), storedRole(b, role)];
    return size({ ...role, dtype: from.dtype }) + size({ ...role, dtype: to.dtype });
  });
  const unused = compareUnusedScales(a, b, false).both.map(({ left, right }) => size(left) + size(right));
  return [...roles, ...unused].reduce((sum, bytes) => sum + bytes, 0);
}

/**
 * Compares all roles, unused scales and copies of two models.
 *
 * @throws DIGEST_MISMATCH, naming the chunk, for a tensor that differs from the digests of its own checkpoint
 */
export async function compareBytes(options: BytesOptions): Promise<BytesResult> {
  const { pool } = options;
  const [a, b] = [withDecodedValues(options.a), withDecodedValues(options.b)];
  await using sourcesA = new Sources(a.checkpoint.store);
  await using sourcesB = new Sources(b.checkpoint.store);
  const seals = { a: sealFinder(a.checkpoint), b: sealFinder(b.checkpoint) };
  const { strictScales, advance, signal } = options;
  const sources = { a: sourcesA, b: sourcesB };
  const context = { a, b, sources, seals, strictScales, advance, signal };
  const leaves: { a: Leaf[]; b: Leaf[] } = { a: [], b: [] };
  const unused = compareUnusedScales(a, b, options.strictScales);
  const differences: RoleDifference[] = [...unused.differences];
  const findings: Finding[] = [...unused.findings];
  let [compared, recast, bytes] = [0, 0, 0];
  const casts: { readonly item: ComparedItem; readonly cast: RecastRole }[] = [];
  const recasts = new Map<string, RecastRole>();
  const dead: EmptyRole[] = [];
  const items = [...a.roles.values()].map((role) => comparedItem(role, a, b));
  await pool.each([...items, ...unused.both.map(({ item }) => item)], async (item, worker) => {
    const { role, a: from, b: to } = item;
    const result = await new ItemComparison(context, worker, item).compare();
    bytes += result.bytes;
    if (item.leaf) {
      compared++;
      if (item.isRecast) recast++;
      leaves.a.push(leafOf(item, from, result.a));
      leaves.b.push(leafOf(item, to, result.b));
    }
    if (result.cast !== null) recasts.set(item.key, result.cast);
    if (result.message !== null) differences.push(roleDifference(item, result.message));
    else if (result.cast !== null) casts.push({ item, cast: result.cast });
    if (result.dead !== null && role !== null) dead.push({ role, tensor: to.tensor, as: result.dead });
  });
  const others = casts.map(({ cast }) => cast);
  findings.push(...notNearestFindings(casts.map(({ cast }) => cast)));
  for (const { item, cast } of casts) {
    const [scale, loss] = [judgeScale(cast, options.strictScales, others), judgeLoss(cast)];
    const message = scale.message ?? loss.message;
    if (message !== null) differences.push(roleDifference(item, message));
    const { tensor } = item.b;
    for (const { rule, text } of [...scale.findings, ...loss.findings])
      findings.push(remark(rule, `${tensor}: ${text}`, { tensor }));
  }
  findings.push(...emptyRoleFindings(dead, compared));
  for (const [side, sources] of [
    [a, sourcesA],
    [b, sourcesB],
  ] as const) {
    await pool.each(side.replicas, async (replica, worker) => {
      const difference = await replicaDifference(side, replica, sources, worker, options.signal);
      if (difference !== null) differences.push(difference);
    });
  }
  const order = new Map(items.map(({ key }, i) => [key, i]));
  const at = ({ key }: RoleDifference) => order.get(key) ?? items.length;
  differences.sort((x, y) => at(x) - at(y) || (x.key < y.key ? -1 : 1));
  const roots = {
    a: contentRoot(a.settings, leaves.a),
    b: contentRoot(b.settings, leaves.b),
  };
  return {
    roots,
    leavesA: leaves.a,
    leaves: leaves.b,
    compared,
    recast,
    bytes,
    differences,
    errors: new Map([...recasts].map(([key, { error }]) => [key, error])),
    error: recasts.size === 0 ? null : errorOf(items.flatMap(({ key }) => recasts.get(key)?.sums ?? [])),
    notNearest: new Set(casts.filter(({ cast }) => cast.notNearest > 0).map(({ item }) => item.key)),
    findings: findings.sort((x, y) => (x.message < y.message ? -1 : 1)),
  };
}

/** Reports the codes that are not nearest: other tools divide in BF16. */
function notNearestFindings(casts: readonly RecastRole[]): readonly Finding[] {
  const sum = (of: (cast: RecastRole) => number) => casts.reduce((total, cast) => total + of(cast), 0);
  const [odd, all] = [sum(({ notNearest }) => notNearest), sum(({ count }) => count)];
  if (odd === 0) return [];
  const share = Number(((100 * odd) / all).toPrecision(2));
  const text = `${share} % of the codes of ${casts.length} weights are not the nearest with the stored scales; all are within the bound of a rounding`;
  return [remark("codes-not-nearest", text)];
}

/** Copies of a tensor on other ranks must be equal: a role is read from one rank, so the other rungs do not read the copies. */
async function replicaDifference(
  { tensors, holds, roles }: MatchedModel,
  { tensor, of, tied }: Replica,
  sources: Sources,
  worker: BandWorker,
  signal: AbortSignal | undefined,
): Promise<RoleDifference | null> {
  const buffer = worker.buffers[0]!.bytes;
  const index = await findFirstDifference(tensors.get(tensor)!, tensors.get(of)!, sources, buffer, signal);
  if (index < 0) return null;
  const role = roles.get(holds.get(tensor)![0]!)!;
  const message = tied
    ? replicaError({ tensor, of, tied }, index).message
    : `element ${index} of ${tensor} differs from ${of}; the two must be copies`;
  return { role, key: role.key, tensors: [tensor, of], message };
}

/** Checks that all roles can be compared. @throws UNSUPPORTED, naming the tensor, for a recast that this version cannot check */
export function refuseUncomparable(a: LoadedModel, b: LoadedModel): void {
  for (const role of a.roles.values()) {
    const [from, to] = [storedRole(a, role), storedRole(b, role)];
    if (isSameForm(from, to)) continue;
    for (const [{ dtype, tensor, scaled }, other] of [[from, to] as const, [to, from] as const]) {
      if (isFloat(dtype) || scaled !== undefined) continue;
      const message = `the tensor is ${dtype}, and ${other.dtype} on the other side: this version cannot check this recast`;
      const next = "compare it with a checkpoint of the same dtype";
      throw new IsologitError("UNSUPPORTED", message, { tensor }, { next });
    }
  }
}
