/**
 * Limits of the loss by a recast. A correct rounding of every code does not prove that the scale is good: with a large
 * scale, the correct rounding of every element is 0. Therefore the scale is compared with the weights, and the elements
 * that became 0 are counted.
 *
 * - A scale is at most twice amax / max. Rounding a scale up to a power of two needs a factor below 2, and no known tool
 *   needs more: rounding to BF16 changes a scale by 2^-8. A factor of 2 costs one binade of the range of the dtype (E4M3
 *   has 14.8 binades of normal numbers, 2^-6 to 448) and no accuracy of larger values. Roles in one stored tensor, and
 *   roles that engines fuse (q, k and v), may share a scale: then the limit is twice the largest amax / max among them.
 * - A scale of another tool may be smaller, as rules of least squared error choose: 0.80 to 0.99 times amax / max. Then at
 *   most one element in a hundred is clipped, and the whole error is at most 3/4 of the bound of a rounding (relative L2).
 *   Scales of rows and blocks are judged by these two numbers; none of their elements loses more than a fifth.
 * - At least half of the nonzero elements become normal numbers. A normal code differs from its element by at most half a
 *   unit: 2^-4 of the element in E4M3, 2^-3 in E5M2. A subnormal code may differ by the whole element. A recast that loses
 *   the median costs more than its dtype requires. With a scale of twice amax / max, that happens where the median is below
 *   amax / 14,000; the median of normally distributed weights is amax / 10. Wider dtypes have no scale, and their subnormal
 *   numbers represent small weights well enough: there at most half of the elements may become 0.
 */

import { scaleOf } from "../../cast/cast.ts";
import { type DecodedBlock, type FloatDType, isDecodedBlock, isFnuz, isFp8 } from "../../core/dtype.ts";
import { formatMeasure } from "../../core/figures.ts";
import { bitsOfF32 } from "../../core/float.ts";
import type { Role } from "../../families/model.ts";
import type { Loss } from "../../workers/calls.ts";
import { type CodeDType, roundingBound } from "../../workers/code-bound.ts";
import type { ErrorSums, LossyPart, RecastError, TensorError } from "./recast-error.ts";

/** A recast role, with what its bands gave. */
export interface RecastRole extends RecastMeasures {
  readonly role: Role | null;
  /** the stored tensor of the destination that holds it */
  readonly tensor: string;
  readonly to: FloatDType | CodeDType | DecodedBlock;
  /** stored scale; null where there is none */
  readonly scale: number | null;
}

/** What the bands of a recast role gave. */
export interface RecastMeasures {
  /** largest |w| of the source with the source's scale applied, F32 */
  readonly amax: number;
  readonly loss: Loss;
  /** codes that are not the nearest, but within the bound of a rounding */
  readonly notNearest: number;
  /** elements */
  readonly count: number;
  /** FNUZ codes as OCP codes: no value differs */
  readonly isRelabelled: boolean;
  readonly sums: ErrorSums;
  readonly error: TensorError;
}

interface Judgement {
  /** why the role is different; null where it is not */
  readonly message: string | null;
  /** findings that do not change the verdict */
  readonly findings: readonly { readonly rule: string; readonly text: string }[];
}

const CORRECT: Judgement = { message: null, findings: [] };

/** A scale may differ from amax / max by this fraction without a finding: one unit in the last place. */
const ONE_ULP = 2 ** -23;

/** A larger fraction of lost elements is reported. Lost rows are always reported. */
const REPORTED_SHARE = 0.01;

/** Largest accepted factor of a scale over amax / max: rounding up to a power of two needs up to 2. */
const MAX_FACTOR = 2;

/**
 * Judges the scale of a recast role.
 *
 * @param strict the destination was written by this version: its scale must equal amax / max, of the role or of all roles that
 *   may share the scale
 * @param others all recast roles, including those that may share the scale
 */
export function judgeScale(recast: RecastRole, strict: boolean, others: readonly RecastRole[]): Judgement {
  const { scale, to, amax, loss, isRelabelled } = recast;
  if (isRelabelled) return CORRECT;
  if (scale === null)
    return strict || loss.clipped === 0 ? CORRECT : judgeClipping(recast, "some of its scales clip");
  if (!isFp8(to)) return CORRECT;
  const best = scaleOf(amax, to);
  const different = (message: string): Judgement => ({ message, findings: [] });
  const text = `its scale is ${scale}; amax/max is ${best}`;
  if (isNear(scale, best)) return CORRECT;
  if (!strict && isRounded(scale, best))
    return { message: null, findings: [{ rule: "scale-rounded", text: `${text}, rounded to BF16` }] };
  if (scale < best && amax > 0)
    return strict ? different(clippedText(scale, best)) : judgeSmaller(recast, best);
  const fused = others.filter((other) => areJoined(recast, other));
  const largest = Math.max(...fused.map((other) => scaleOf(other.amax, to)));
  const isShared = fused.every((other) => other.to === to && other.scale === scale);
  if (strict) return isShared && isNear(scale, largest) ? CORRECT : different(text);
  if (amax === 0) return CORRECT; // with any scale, zeros stay zeros
  if (isAllowed(scale, best)) return { message: null, findings: [{ rule: "scale-larger", text }] };
  if (isShared && isAllowed(scale, largest)) {
    const of = fused.map(({ role }) => role!.spec.role).join(", ");
    const shared = `${text}, and ${largest} is the largest of ${of}, which share the scale`;
    return { message: null, findings: [{ rule: "scale-larger", text: shared }] };
  }
  const times = Number((scale / best).toPrecision(3));
  return different(
    `its scale ${scale} is ${times} times amax/max = ${best}, and ${MAX_FACTOR} times is the most that any tool ` +
      "needs: small values are lost",
  );
}

const clippedText = (scale: number, best: number): string =>
  `its scale ${scale} is below amax/max = ${best}: values are clipped`;

/**
 * Rules of least squared error try 1, 0.99, … 0.80 times amax, so other smaller scales are no rule's. Each factor may also be
 * rounded to BF16.
 */
const SHRINKS = { least: 0.8 * (1 - 2 ** -8), most: 0.99 * (1 + 2 ** -8) } as const;

/** Of divisions in BF16 one code in 25 is not the nearest. With a smaller scale beside the codes of another, far more are. */
const NOT_NEAREST_SHARE = 1 / 16;

/** Judges a scale of another tool that is smaller than amax / max and not amax / max in BF16. */
function judgeSmaller(recast: RecastRole, best: number): Judgement {
  const { scale, notNearest, count } = recast;
  const factor = scale! / best; // the caller has compared the scale
  const isRule = factor >= SHRINKS.least && factor <= SHRINKS.most;
  if (!isRule || notNearest > NOT_NEAREST_SHARE * count)
    return { message: clippedText(scale!, best), findings: [] };
  const times = formatMeasure(factor);
  return judgeClipping(recast, `its scale ${scale} is ${times} times amax/max = ${best}`);
}

/** A rule of least squared error clips rare elements: one in a hundred at most. */
const CLIPPED_SHARE = 0.01;
/**
 * The part of the bound of a rounding that the whole error (relative L2) of a tensor with clipped elements may reach. Rounding
 * to E4M3 alone costs 0.4 of it; a rule of least squared error never clips for more than it saves.
 */
const CLIPPED_ERROR = 0.75;

function judgeClipping({ to, count, loss: { clipped }, error }: RecastRole, text: string): Judgement {
  const all = `${text}: ${clipped} of ${count} elements are clipped, relative L2 ${formatMeasure(error.relL2)}`;
  return clipped <= CLIPPED_SHARE * count && error.relL2 <= CLIPPED_ERROR * roundingBound(to)
    ? { message: null, findings: [{ rule: "scale-smaller", text: all }] }
    : { message: all, findings: [] };
}

/** Judges how many elements of a recast role became 0 or subnormal. */
export function judgeLoss({ to, loss, error }: Pick<RecastRole, "to" | "loss" | "error">): Judgement {
  const { nonzero, zeroed, coarse } = loss;
  if (isDecodedBlock(to)) return CORRECT; // blocks are judged one by one; few bits make many zeros
  const share = (count: number) => `${count} of ${nonzero} elements that are not 0 in the source`;
  if (2 * zeroed > nonzero) return { message: `${share(zeroed)} became 0`, findings: [] };
  const isCode = isFp8(to) || isFnuz(to);
  if (isCode && 2 * coarse > nonzero) {
    return { message: `${share(coarse)} became 0 or a subnormal code: their values are lost`, findings: [] };
  }
  const parts = error.parts.flatMap((part) => partText(part, error, to) ?? []);
  const isReported = parts.length === 0 && zeroed > REPORTED_SHARE * nonzero;
  const texts = isReported ? [`${share(zeroed)} became 0`] : parts;
  return { message: null, findings: texts.map((text) => ({ rule: "weights-lost", text })) };
}

/** What a part lost, if it has rows that became 0, or if half of its rows or their sum are rounded too coarsely; else null. */
function partText(
  { part, rows, lossyRows, lostRows, first, last, relL2 }: LossyPart,
  whole: RecastError,
  to: RecastRole["to"],
): string | null {
  const isCoarse = relL2 > roundingBound(to) || 2 * lossyRows >= rows;
  if (lostRows === 0 && !isCoarse) return null;
  const name = part === null ? "" : `${part}: `;
  const range =
    last - first + 1 === lossyRows ? `rows ${first} to ${last}` : `from row ${first} to row ${last}`;
  const why = isFp8(to) || isFnuz(to) ? "with the scale of the tensor, which larger rows need" : `in ${to}`;
  if (lostRows === lossyRows) return `${name}${lostRows} of ${rows} rows (${range}) became 0 ${why}`;
  const zeros = lostRows === 0 ? "" : `, ${lostRows} of them became 0`;
  return (
    `${name}${lossyRows} of ${rows} rows (${range}) lost more than rounding explains, ${why}${zeros}: ` +
    `relative L2 ${formatMeasure(relL2)}, of the whole tensor ${formatMeasure(whole.relL2)}`
  );
}

function isNear(scale: number, best: number): boolean {
  return scale >= best * (1 - ONE_ULP) && scale <= best * (1 + ONE_ULP);
}

/** Whether a scale is amax / max in BF16. The codes of the largest elements are then up to 2^-9 too small. */
function isRounded(scale: number, best: number): boolean {
  return (bitsOfF32(scale) & 0xffff) === 0 && Math.abs(scale - best) <= 2 ** -8 * best;
}

function isAllowed(scale: number, best: number): boolean {
  return scale <= MAX_FACTOR * best * (1 + ONE_ULP);
}

/** Whether two roles may share a scale: they are stored in one tensor, or engines join them. */
function areJoined(a: RecastRole, b: RecastRole): boolean {
  if (a.tensor === b.tensor) return true;
  const [left, right] = [a.role, b.role];
  const fused = left?.spec.fused;
  if (fused === undefined || right?.spec.fused !== fused) return false;
  return right.layer === left?.layer && right.expert === left?.expert;
}
