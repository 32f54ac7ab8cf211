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
import { bytesOf, isNumeric } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import type { Watch } from "../../core/events.ts";
import type { Finding } from "../../core/finding.ts";
import { remark } from "../../core/finding.ts";
import { findFirstDifference } from "../../core/first-difference.ts";
import { Sources } from "../../core/read.ts";
import { sealFinder } from "../../core/sealed-spans.ts";
import { replicaError } from "../../families/match.ts";
import { layerReporter, type MatchedModel, type Replica } from "../../families/model.ts";
import type { BandWorker, WorkerPool } from "../../workers/pool.ts";
import type { EqualContent } from "../pairs/paired-reading.ts";
import {
  type ComparedItem,
  comparedItem,
  leafOf,
  type RoleDifference,
  roleDifference,
} from "./compared-items.ts";
import { type EmptyRole, emptyRoleFindings } from "./empty-roles.ts";
import { type ComparedContent, ItemComparison, type ItemContext } from "./item-comparison.ts";
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
  readonly phase: "bytes" | "measure";
  /** pairs of tensors that were compared already; default none */
  readonly equal?: EqualContent;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

/** Number of bytes that the rung reads, both sides. */
export function bytesToCompare(a: LoadedModel, b: LoadedModel): number {
  const size = ({ dtype, shape }: Tensor) => bytesOf(dtype, shape);
  const unused = compareUnusedScales(a, b, false).both.map(({ left, right }) => size(left) + size(right));
  return unused.reduce(
    (sum, bytes) => sum + bytes,
    bytesOfRoles(a, b, () => true),
  );
}

/** Number of bytes of the recast roles, both sides. */
export function bytesToMeasure(a: LoadedModel, b: LoadedModel): number {
  return bytesOfRoles(a, b, (from, to) => !isSameForm(from, to));
}

function bytesOfRoles(a: LoadedModel, b: LoadedModel, isCounted: typeof isSameForm): number {
  let bytes = 0;
  for (const role of a.roles.values()) {
    const [from, to] = [storedRole(a, role), storedRole(b, role)];
    if (isCounted(from, to)) bytes += bytesOf(from.dtype, role.shape) + bytesOf(to.dtype, role.shape);
  }
  return bytes;
}

/**
 * Compares all roles, unused scales and copies of two models.
 *
 * @throws DIGEST_MISMATCH, naming the chunk, for a tensor that differs from the digests of its own checkpoint
 */
export async function compareBytes(options: BytesOptions): Promise<BytesResult> {
  const { pool, strictScales, signal } = options;
  await using context = openContext(options);
  const { a, b, sources } = context;
  const leaves: { a: Leaf[]; b: Leaf[] } = { a: [], b: [] };
  const unused = compareUnusedScales(a, b, strictScales);
  const differences: RoleDifference[] = [...unused.differences];
  const findings: Finding[] = [...unused.findings];
  let bytes = 0;
  const dead: EmptyRole[] = [];
  const items = [...a.roles.values()].map((role) => comparedItem(role, a, b));
  const compared = await compareItems(context, options, [...items, ...unused.both.map(({ item }) => item)]);
  for (const { item, result } of compared) {
    const { role, a: from, b: to } = item;
    bytes += result.bytes;
    if (item.leaf) {
      leaves.a.push(leafOf(item, from, result.a));
      leaves.b.push(leafOf(item, to, result.b));
    }
    if (result.dead !== null && role !== null) dead.push({ role, tensor: to.tensor, as: result.dead });
  }
  const judged = judgeItems(compared, strictScales);
  differences.push(...judged.differences);
  findings.push(...judged.findings);
  findings.push(...emptyRoleFindings(dead, items.length));
  for (const side of ["a", "b"] as const) {
    await pool.each(context[side].replicas, async (replica, worker) => {
      const difference = await replicaDifference(context[side], replica, sources[side], worker, signal);
      if (difference !== null) differences.push(difference);
    });
  }
  const roots = {
    a: contentRoot(a.settings, leaves.a),
    b: contentRoot(b.settings, leaves.b),
  };
  return {
    roots,
    leavesA: leaves.a,
    leaves: leaves.b,
    compared: items.length,
    recast: judged.errors.size,
    bytes,
    ...judged,
    differences: inOrder(differences, items),
    findings: findings.sort(byMessage),
  };
}

/** What the recasts of a planned conversion will cost. */
type RecastMeasurement = Pick<BytesResult, "differences" | "errors" | "error" | "findings">;

/** Compares the recast roles only. `b` may be a destination that is planned and computed when it is read. */
export async function measureRecasts(options: BytesOptions): Promise<RecastMeasurement> {
  await using context = openContext(options);
  const { a, b } = context;
  const items = [...a.roles.values()]
    .map((role) => comparedItem(role, a, b))
    .filter(({ isRecast }) => isRecast);
  const compared = await compareItems(context, options, items);
  const { errors, error, differences, findings } = judgeItems(compared, options.strictScales);
  return { errors, error, differences: inOrder(differences, items), findings: [...findings].sort(byMessage) };
}

const byMessage = (x: Finding, y: Finding): number => (x.message < y.message ? -1 : 1);

/** Differences in the order of the items; those of no item come last. */
function inOrder(differences: readonly RoleDifference[], items: readonly ComparedItem[]) {
  const order = new Map(items.map(({ key }, i) => [key, i]));
  const at = ({ key }: RoleDifference) => order.get(key) ?? items.length;
  return [...differences].sort((x, y) => at(x) - at(y) || (x.key < y.key ? -1 : 1));
}

/** What comparisons of items share, with open files. */
function openContext({ strictScales, phase, equal = new Map(), watch, signal, ...models }: BytesOptions) {
  const [a, b] = [withDecodedValues(models.a), withDecodedValues(models.b)];
  const seals = { a: sealFinder(a.checkpoint), b: sealFinder(b.checkpoint) };
  const sources = { a: new Sources(a.checkpoint.store), b: new Sources(b.checkpoint.store) };
  const close = async () => {
    await sources.a[Symbol.asyncDispose]();
    await sources.b[Symbol.asyncDispose]();
  };
  const advance = (bytes: number) => watch({ type: "advance", phase, bytes });
  return { a, b, sources, seals, strictScales, equal, advance, signal, [Symbol.asyncDispose]: close };
}

/** An item with the result of its comparison. */
interface ItemResult {
  readonly item: ComparedItem;
  readonly result: ComparedContent;
}

/**
 * Compares items in worker threads, the last first: forward passes follow, and they find the first layers in the page cache.
 *
 * @returns the results, in the order of the items
 */
async function compareItems(
  context: ItemContext,
  { pool, watch }: BytesOptions,
  items: readonly ComparedItem[],
): Promise<readonly ItemResult[]> {
  const reportLayer = layerReporter(context.a, watch);
  const results = new Map<ComparedItem, ComparedContent>();
  await pool.each(items.toReversed(), async (item, worker) => {
    results.set(item, await new ItemComparison(context, worker, item).compare());
    reportLayer(item.role);
  });
  return items.map((item) => ({ item, result: results.get(item)! })); // each job has run
}

/** Judges the differences, the scales and the losses of compared items. */
function judgeItems(compared: readonly ItemResult[], strictScales: boolean) {
  const recasts = compared.flatMap(({ item, result }) =>
    result.cast === null ? [] : [{ item, cast: result.cast, message: result.message }],
  );
  const casts = recasts.filter(({ message }) => message === null);
  const { differences, findings } = judgeCasts(casts, strictScales);
  for (const { item, result } of compared)
    if (result.message !== null) differences.push(roleDifference(item, result.message));
  return {
    differences,
    findings,
    errors: new Map(recasts.map(({ item, cast }) => [item.key, cast.error])),
    error: recasts.length === 0 ? null : errorOf(recasts.map(({ cast }) => cast.sums)),
    notNearest: new Set(casts.filter(({ cast }) => cast.notNearest > 0).map(({ item }) => item.key)),
  };
}

/** A recast role whose elements are roundings of the source. */
interface JudgedCast {
  readonly item: ComparedItem;
  readonly cast: RecastRole;
}

/** Judges the scales and the losses of all recast roles. */
function judgeCasts(casts: readonly JudgedCast[], strictScales: boolean) {
  const others = casts.map(({ cast }) => cast);
  const differences: RoleDifference[] = [];
  const findings: Finding[] = [...notNearestFindings(others)];
  for (const { item, cast } of casts) {
    const [scale, loss] = [judgeScale(cast, strictScales, others), judgeLoss(cast)];
    const message = scale.message ?? loss.message;
    if (message !== null) differences.push(roleDifference(item, message));
    const { tensor } = item.b;
    for (const { rule, text } of [...scale.findings, ...loss.findings])
      findings.push(remark(rule, `${tensor}: ${text}`, { tensor }));
  }
  return { differences, findings };
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
      if (isNumeric(dtype) || scaled !== undefined) continue;
      const message = `the tensor is ${dtype}, and ${other.dtype} on the other side: this version cannot check this recast`;
      const next = "compare it with a checkpoint of the same dtype";
      throw new IsologitError("UNSUPPORTED", message, { tensor }, { next });
    }
  }
}
