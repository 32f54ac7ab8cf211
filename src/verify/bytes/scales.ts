/**
 * What a recast may cost. Codes that are the right rounding under a scale prove nothing of the scale: under one that is
 * large enough every code is rightly 0. So the scale is held to the weights, and what became 0 is counted.
 *
 * - A scale is at most twice amax / max. That is what rounding a scale up to a power of two comes to, and no arithmetic
 *   in use goes further: a scale rounded to BF16 is 2^-8 off. It costs one binade of the type's range, of 14.8 in E4M3
 *   (2^-6 to 448, its normal numbers), and no accuracy above it. Roles that engines fuse (q, k and v) may share one
 *   scale: then twice the largest amax / max among them is allowed.
 * - At least half of the elements that are not 0 come out as normal numbers. A normal code is within half a unit of its
 *   element, 2^-4 of it in E4M3 and 2^-3 in E5M2; a subnormal one may be off by all of it. Where the median is lost, the
 *   recast costs more than its type does. With a scale of twice amax / max that takes a median below amax / 14,000; of
 *   normally distributed weights the median is amax / 10. Wider types have no scale, and subnormal numbers in them keep
 *   what weights that small have to say: there half of the elements must not become 0.
 */

import { scaleOf } from "../../cast/cast.ts";
import { type DType, isFp8 } from "../../core/dtype.ts";
import type { Role } from "../../families/model.ts";
import type { Loss } from "../../workers/pool.ts";

/** A role that was recast, and what its bands showed. */
export interface RecastRole {
  readonly role: Role | null;
  readonly to: DType;
  /** the stored one; null where there is none */
  readonly scale: number | null;
  /** largest |w| of the source, its own scale applied, F32 */
  readonly amax: number;
  readonly loss: Loss;
}

export interface Judgement {
  /** why it is different; null where it is not */
  readonly message: string | null;
  /** oddities that make no verdict */
  readonly findings: readonly { readonly rule: string; readonly text: string }[];
}

const RIGHT: Judgement = { message: null, findings: [] };

/** A scale may leave the quotient of amax by this much before it is called odd: one unit in the last place. */
const ONE_ULP = 2 ** -23;

/** What rounding up to a power of two comes to. */
const MOST_TIMES = 2;

/**
 * @param own    b is our own conversion of a: its scale must be amax / max
 * @param others all recast roles, among them those that engines fuse with this one
 */
export function judgeScale(recast: RecastRole, own: boolean, others: readonly RecastRole[]): Judgement {
  const { scale, to, amax } = recast;
  if (scale === null || !isFp8(to)) return RIGHT;
  const best = scaleOf(amax, to);
  const different = (message: string): Judgement => ({ message, findings: [] });
  const told = `its scale is ${scale}; amax/max is ${best}`;
  if (isNear(scale, best)) return RIGHT;
  if (scale < best && amax > 0)
    return different(`its scale ${scale} is below amax/max = ${best}: values are clipped`);
  if (own) return different(told);
  if (amax === 0) return RIGHT; // any scale gives zeros back
  if (isAllowed(scale, best)) return { message: null, findings: [{ rule: "scale-larger", text: told }] };
  const fused = others.filter((other) => isFused(recast, other));
  const largest = Math.max(...fused.map((other) => scaleOf(other.amax, to)));
  const shared = fused.every((other) => other.to === to && other.scale === scale);
  if (shared && isAllowed(scale, largest)) {
    const of = fused.map(({ role }) => role!.spec.role).join(", ");
    const text = `${told}, and ${largest} the largest of ${of}, which share it`;
    return { message: null, findings: [{ rule: "scale-larger", text }] };
  }
  const times = Number((scale / best).toPrecision(3));
  return different(
    `its scale ${scale} is ${times} times amax/max = ${best}, and ${MOST_TIMES} times is the most that a tool has cause ` +
      "for: small values are lost",
  );
}

/** Rows that are lost, and any share from this on, are told. */
const TOLD_SHARE = 0.01;

export function judgeLoss({ to, loss, role }: Pick<RecastRole, "to" | "loss" | "role">): Judgement {
  const { nonzero, zeroed, coarse, rows } = loss;
  const told = (text: string): Judgement => ({ message: null, findings: [{ rule: "weights-lost", text }] });
  const share = (count: number) => `${count} of ${nonzero} elements that are not 0 in the source`;
  if (2 * zeroed > nonzero) return { message: `${share(zeroed)} became 0`, findings: [] };
  if (isFp8(to) && 2 * coarse > nonzero) {
    return { message: `${share(coarse)} became 0 or a subnormal code: their values are lost`, findings: [] };
  }
  if (rows !== null) {
    const { count, first, last } = rows;
    const all = role?.shape[0] ?? 0;
    const which =
      last - first + 1 === count ? `rows ${first} to ${last}` : `from row ${first} to row ${last}`;
    const why = isFp8(to) ? "under its one scale, which larger rows need" : `in ${to}`;
    return told(`${count} of ${all} rows (${which}) became 0 ${why}`);
  }
  return zeroed > TOLD_SHARE * nonzero ? told(`${share(zeroed)} became 0`) : RIGHT;
}

function isNear(scale: number, best: number): boolean {
  return scale >= best * (1 - ONE_ULP) && scale <= best * (1 + ONE_ULP);
}

function isAllowed(scale: number, best: number): boolean {
  return scale <= MOST_TIMES * best * (1 + ONE_ULP);
}

function isFused({ role: mine }: RecastRole, { role: other }: RecastRole): boolean {
  const fused = mine?.spec.fused;
  return fused !== undefined && other?.spec.fused === fused && other.layer === mine?.layer;
}
