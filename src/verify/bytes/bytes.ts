/** The bytes rung: reads both sides by role and compares every item. The result has the content roots of both sides. */
import { isSameForm, type LoadedModel, storedRole } from "../../checkpoint/load.ts";
import type { Tensor } from "../../core/checkpoint.ts";
import { contentRoot, type Leaf } from "../../core/content-root.ts";
import { bytesOf, isNumeric } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import type { Finding } from "../../core/finding.ts";
import { remark } from "../../core/finding.ts";
import { replicaError } from "../../families/match.ts";
import type { MatchedModel, Replica } from "../../families/model.ts";
import {
  type ComparedItem,
  comparedItem,
  leafOf,
  type RoleDifference,
  roleDifference,
} from "./compared-items.ts";
import { type EmptyRole, emptyRoleFindings } from "./empty-roles.ts";
import { recastRole } from "./item-comparison.ts";
import {
  type BytesOptions,
  comparePieces,
  type ItemResult,
  isKnown,
  itemPiece,
  openContext,
  piecesOf,
  resultsIn,
} from "./pieces.ts";
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
  /** pieces that were not read, because their comparison was known */
  readonly known: number;
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
  const { strictScales } = options;
  await using context = openContext(options);
  const { a, b } = context;
  const leaves: { a: Leaf[]; b: Leaf[] } = { a: [], b: [] };
  const unused = compareUnusedScales(a, b, strictScales);
  const differences: RoleDifference[] = [...unused.differences];
  const findings: Finding[] = [...unused.findings];
  let bytes = 0;
  const dead: EmptyRole[] = [];
  const { items, pieces } = piecesOf(context, unused);
  const found = await comparePieces(context, options, pieces);
  const compared = resultsIn(found, pieces);
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
  for (const { key, side, replica } of pieces.filter((piece) => piece.kind === "copy")) {
    const index = found.copies.get(key)!; // each piece has been compared
    if (index >= 0) differences.push(replicaDifference(context[side], replica, index));
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
    known: pieces.filter(({ key }) => isKnown(options, key)).length,
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
  const pieces = items.map(itemPiece);
  const compared = resultsIn(await comparePieces(context, options, pieces), pieces);
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

/** Judges the differences, the scales and the losses of compared items. */
function judgeItems(compared: readonly ItemResult[], strictScales: boolean) {
  const recasts = compared.flatMap(({ item, result }) =>
    result.cast === null ? [] : [{ item, cast: recastRole(item, result.cast), message: result.message }],
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

function replicaDifference(
  { holds, roles }: MatchedModel,
  { tensor, of, tied }: Replica,
  index: number,
): RoleDifference {
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
