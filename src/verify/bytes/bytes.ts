/**
 * The bytes rung: both sides read back by role. Where the bits should be the same, they are compared; where the
 * destination was recast, the source is recast again under the stored scale and every code must be that one.
 */

import type { EmptyKind } from "../../cast/cast.ts";
import { type LoadedModel, type ModelWithScales, storedRole } from "../../checkpoint/load.ts";
import { refuseDamaged, sealOfElements } from "../../checkpoint/tensor-digests.ts";
import type { Tensor } from "../../core/checkpoint.ts";
import { contentRoot, type Leaf } from "../../core/content-root.ts";
import { bytesOf, countOf, type FloatDType, isFloat, widthOf } from "../../core/dtype.ts";
import { IsologitError, withLocation } from "../../core/errors.ts";
import type { Finding } from "../../core/finding.ts";
import { remark } from "../../core/finding.ts";
import { findFirstDifference } from "../../core/first-difference.ts";
import { type Band, bandsOf, gatherExtents, rowsUnit } from "../../core/gather.ts";
import { Sources } from "../../core/read.ts";
import { type FindSeal, sealFinder } from "../../core/sealed-spans.ts";
import { replicaError } from "../../families/match.ts";
import type { Matched, Replica } from "../../families/model.ts";
import { pipelineBands } from "../../workers/pipeline.ts";
import type { BandBuffer, BandWorker, Loss, WorkerPool } from "../../workers/pool.ts";
import {
  type ComparedItem,
  type ComparedSide,
  comparedItem,
  differenceOf,
  type RoleDifference,
} from "./compared-items.ts";
import { type DeadRole, deadFindings } from "./empty-roles.ts";
import { judgeLoss, judgeScale, type RecastRole } from "./scales.ts";
import { compareUnusedScales } from "./unread-scales.ts";

export interface BytesResult {
  readonly roots: { readonly a: string; readonly b: string };
  readonly leavesA: readonly Leaf[];
  /** b's */
  readonly leaves: readonly Leaf[];
  readonly compared: number;
  readonly recast: number;
  readonly bytes: number;
  /** in order of execution, scales that no role reads last */
  readonly differences: readonly RoleDifference[];
  /** oddities that make no verdict */
  readonly findings: readonly Finding[];
}

export interface BytesOptions {
  readonly a: ModelWithScales;
  readonly b: ModelWithScales;
  readonly pool: WorkerPool;
  /** b is our own conversion of a: its scales must be amax/max, where another tool may have chosen larger ones */
  readonly strictScales: boolean;
  readonly advance: (bytes: number) => void;
  readonly signal: AbortSignal | undefined;
}

/** Bytes that the rung reads. */
export function bytesToCompare(a: LoadedModel, b: LoadedModel): number {
  const size = ({ dtype, shape }: Pick<Tensor, "dtype" | "shape">) => bytesOf(dtype, shape);
  const roles = [...a.roles.values()].map((role) => {
    const [from, to] = [storedRole(a, role), storedRole(b, role)];
    return size({ ...role, dtype: from.dtype }) + size({ ...role, dtype: to.dtype });
  });
  const unread = compareUnusedScales(a, b, false).both.map(({ left, right }) => size(left) + size(right));
  return [...roles, ...unread].reduce((sum, bytes) => sum + bytes, 0);
}

/** @throws DIGEST_MISMATCH, naming the chunk, for a tensor that is not what its own checkpoint sealed */
export async function compareBytes(options: BytesOptions): Promise<BytesResult> {
  const { a, b, pool } = options;
  await using sourcesA = new Sources(a.checkpoint.store);
  await using sourcesB = new Sources(b.checkpoint.store);
  const seals = { a: sealFinder(a.checkpoint), b: sealFinder(b.checkpoint) };
  const leaves: { a: Leaf[]; b: Leaf[] } = { a: [], b: [] };
  const unread = compareUnusedScales(a, b, options.strictScales);
  const differences: RoleDifference[] = [...unread.differences];
  const findings: Finding[] = [...unread.findings];
  let [compared, recast, bytes] = [0, 0, 0];
  const casts: { readonly item: ComparedItem; readonly cast: RecastRole }[] = [];
  const dead: DeadRole[] = [];
  const items = [...a.roles.values()].map((role) => comparedItem(role, a, b));
  await pool.each([...items, ...unread.both.map(({ item }) => item)], async (item, lane) => {
    const { key, shape, role, a: from, b: to } = item;
    const result = await new Pair(options, sourcesA, sourcesB, seals, lane, item).compare();
    bytes += result.bytes;
    if (item.leaf) {
      compared++;
      if (from.dtype !== to.dtype) recast++;
      leaves.a.push({ key, dtype: from.dtype, shape, sha256: result.a, scale: from.scales });
      leaves.b.push({ key, dtype: to.dtype, shape, sha256: result.b, scale: to.scales });
    }
    if (result.message !== null) differences.push(differenceOf(item, result.message));
    else if (result.cast !== null) casts.push({ item, cast: result.cast });
    if (result.dead !== null && role !== null) dead.push({ role, tensor: to.tensor, as: result.dead });
  });
  const others = casts.map(({ cast }) => cast);
  for (const { item, cast } of casts) {
    const [scale, loss] = [judgeScale(cast, options.strictScales, others), judgeLoss(cast)];
    const message = scale.message ?? loss.message;
    if (message !== null) differences.push(differenceOf(item, message));
    const { tensor } = item.b;
    for (const { rule, text } of [...scale.findings, ...loss.findings])
      findings.push(remark(rule, `${tensor}: ${text}`, { tensor }));
  }
  findings.push(...deadFindings(dead, compared));
  for (const [side, sources] of [
    [a, sourcesA],
    [b, sourcesB],
  ] as const) {
    await pool.each(side.replicas, async (replica, lane) => {
      const difference = await replicaDifference(side, replica, sources, lane, options.signal);
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
    findings: findings.sort((x, y) => (x.message < y.message ? -1 : 1)),
  };
}

/** Ranks that hold the same must agree: a role is read from one of them, and its copies would go unseen. */
async function replicaDifference(
  { tensors, holds, roles }: Matched,
  { tensor, of, tied }: Replica,
  sources: Sources,
  lane: BandWorker,
  signal: AbortSignal | undefined,
): Promise<RoleDifference | null> {
  const room = lane.buffers[0]!.bytes;
  const index = await findFirstDifference(tensors.get(tensor)!, tensors.get(of)!, sources, room, signal);
  if (index < 0) return null;
  const role = roles.get(holds.get(tensor)![0]!)!;
  const message = tied
    ? replicaError({ tensor, of, tied }, index).message
    : `element ${index} of ${tensor} is not that of ${of}, of which it must be a copy`;
  return { role, key: role.key, tensors: [tensor, of], message };
}

/** Rows of fewer elements, as of a convolution's taps, are not looked at one by one. */
const LEAST_COLUMNS = 16;

class Pair {
  readonly #o: BytesOptions;
  readonly #sources: { readonly a: Sources; readonly b: Sources };
  readonly #seals: { readonly a: FindSeal; readonly b: FindSeal };
  readonly #lane: BandWorker;
  readonly #item: ComparedItem;

  constructor(
    o: BytesOptions,
    a: Sources,
    b: Sources,
    seals: { readonly a: FindSeal; readonly b: FindSeal },
    lane: BandWorker,
    item: ComparedItem,
  ) {
    this.#o = o;
    this.#sources = { a, b };
    this.#seals = seals;
    this.#lane = lane;
    this.#item = item;
  }

  async compare() {
    const { a: from, b: to, shape } = this.#item;
    const cast =
      from.dtype === to.dtype
        ? null
        : { from: floats(from), to: floats(to), scale: scaleIn(to), sourceScale: scaleIn(from) };
    const [width, toWidth] = [widthOf(from.dtype), widthOf(to.dtype)];
    const count = countOf(shape);
    const isRole = this.#item.leaf && isFloat(from.dtype);
    let firstBad = Infinity;
    let amax = 0;
    let loss: Loss = { nonzero: 0, zeroed: 0, coarse: 0, rows: null };
    /** what all bands so far are; undefined before the first */
    let dead: EmptyKind | null | undefined;
    // A slot holds both sides' bands, and room for the recast one.
    const perElement = width + toWidth + (cast === null ? 0 : toWidth);
    const room = this.#lane.buffers[0]!.bytes.byteLength;
    const columns = cast === null || shape.length < 2 ? 0 : shape.at(-1)!;
    const unit = columns >= LEAST_COLUMNS ? rowsUnit(columns) : Infinity;
    const inRows = unit * perElement <= room;
    await pipelineBands(
      this.#lane,
      bandsOf(count, perElement, room, inRows ? unit : undefined),
      async (band, slot) => {
        this.#o.signal?.throwIfAborted();
        await Promise.all([
          this.#read("a", band, slot, 0, width),
          this.#read("b", band, slot, (band.hi - band.lo) * width, toWidth),
        ]);
      },
      async ({ lo, hi }, slot) => {
        const n = hi - lo;
        const [a, b] = [slot.at, slot.at + n * width];
        const casting =
          cast === null ? {} : { cast: { ...cast, toAt: b + n * toWidth, columns: inRows ? columns : 0 } };
        const result = await this.#lane.call({
          op: "pair",
          a,
          b,
          count: n,
          size: n * width,
          toSize: n * toWidth,
          ...casting,
          ...(isRole && dead !== null && { probe: floats(from) }),
        });
        if (result.differsAt >= 0) firstBad = Math.min(firstBad, lo + result.differsAt);
        amax = Math.max(amax, result.amax);
        if (result.loss !== null) loss = joined(loss, result.loss, inRows ? lo / columns : 0);
        dead = dead === undefined || dead === result.dead ? result.dead : null;
        this.#o.advance(n * (width + toWidth));
      },
    );
    const { source, sha256 } = await this.#lane.call({ op: "finish" });
    const message = this.#message(firstBad, cast !== null);
    await this.#refuseDamaged("a", count, source);
    // What we wrote just now and is not the source's is told as that: its own seals say nothing beside it.
    if (!this.#o.strictScales || message === null) await this.#refuseDamaged("b", count, sha256);
    return {
      a: source,
      b: sha256,
      bytes: count * (width + toWidth),
      message,
      cast: cast === null ? null : this.#recast(amax, loss),
      dead: dead ?? null,
    };
  }

  async #refuseDamaged(side: "a" | "b", count: number, sha256: string): Promise<void> {
    const seal = sealOfElements(
      this.#item[side].elementSource,
      count,
      this.#o[side].tensors,
      this.#seals[side],
    );
    await refuseDamaged(seal, { sha256 }, this.#sources[side], this.#o.signal);
  }

  #message(firstBad: number, cast: boolean): string | null {
    const { a: from, b: to } = this.#item;
    if (firstBad === Infinity) return cast ? null : scaleDifference(from.scales, to.scales);
    return cast
      ? `element ${firstBad} is not the right rounding of the source under the stored scale`
      : `the first differing element is ${firstBad}`;
  }

  #recast(amax: number, loss: Loss): RecastRole {
    const { a: from, b: to, role } = this.#item;
    const real = Math.fround(amax * (scaleIn(from) ?? 1));
    return { role, to: to.dtype, scale: scaleIn(to), amax: real, loss };
  }

  async #read(side: "a" | "b", band: Band, slot: BandBuffer, at: number, width: number): Promise<void> {
    const { elementSource, tensor } = this.#item[side];
    const extents = gatherExtents(elementSource, band, this.#o[side].tensors, width);
    const target = slot.bytes.subarray(at, at + (band.hi - band.lo) * width);
    await this.#sources[side].read(extents, target, this.#o.signal).catch((error) => {
      throw withLocation(error, { tensor });
    });
  }
}

/** What two runs of bands lost; the second starts with row `row`. */
function joined(one: Loss, other: Loss, row: number): Loss {
  const [before, after] = [one.rows, other.rows];
  const rows =
    after === null
      ? before
      : {
          count: (before?.count ?? 0) + after.count,
          first: Math.min(before?.first ?? Infinity, row + after.first),
          last: Math.max(before?.last ?? -1, row + after.last),
        };
  return {
    nonzero: one.nonzero + other.nonzero,
    zeroed: one.zeroed + other.zeroed,
    coarse: one.coarse + other.coarse,
    rows,
  };
}

/** What a recast side is stored as; others were refused before. */
function floats({ dtype, tensor }: ComparedSide): FloatDType {
  if (isFloat(dtype)) return dtype;
  throw new IsologitError("INTERNAL", `${dtype} was to be recast`, { tensor });
}

/** The one scale of a recast side, null where there is none; a scale a row was refused before. */
function scaleIn({ scales, tensor }: ComparedSide): number | null {
  if (scales === null || scales.length === 1) return scales?.[0] ?? null;
  throw new IsologitError("INTERNAL", "scales of rows were to be recast", { tensor });
}

function scaleDifference(a: Float32Array | null, b: Float32Array | null): string | null {
  if (a === null || b === null) return null; // an FP8 weight has scales, any other has none
  if (a.length !== b.length) return `it has ${b.length} scales, not ${a.length}`;
  const row = a.findIndex((scale, i) => scale !== b[i]);
  if (row < 0) return null;
  return `its scale${a.length > 1 ? ` of row ${row}` : ""} is ${b[row]}, not ${a[row]}`;
}

/** @throws UNSUPPORTED, naming the tensor, where a role is recast from or to what this version cannot */
export function refuseUncomparable(a: LoadedModel, b: LoadedModel): void {
  for (const role of a.roles.values()) {
    const [from, to] = [storedRole(a, role), storedRole(b, role)];
    if (from.dtype === to.dtype) continue;
    for (const [side, { dtype, tensor }, other] of [[a, from, to] as const, [b, to, from] as const]) {
      const found = !isFloat(dtype)
        ? `it is ${dtype}`
        : side.scales.scaleOf.get(tensor)?.axis === 0
          ? `it is ${dtype} with a scale a row`
          : null;
      if (found === null) continue;
      const message = `${found}, and ${other.dtype} on the other side: no recast of this version leads there`;
      const next = "compare it with a checkpoint of the same dtype";
      throw new IsologitError("UNSUPPORTED", message, { tensor }, { next });
    }
  }
}
