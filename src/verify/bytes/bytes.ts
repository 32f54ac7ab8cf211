/**
 * The bytes rung: reads both sides by role. Where the dtypes are equal, the bits must be equal. Where the destination was
 * recast, the source is recast again with the stored scale, and every code must equal the result.
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
import type { MatchedModel, Replica } from "../../families/model.ts";
import { pipelineBands } from "../../workers/pipeline.ts";
import type { BandBuffer, BandWorker, Loss, WorkerPool } from "../../workers/pool.ts";
import {
  type ComparedItem,
  type ComparedSide,
  comparedItem,
  type RoleDifference,
  roleDifference,
} from "./compared-items.ts";
import { type EmptyRole, emptyRoleFindings } from "./empty-roles.ts";
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
  const { a, b, pool } = options;
  await using sourcesA = new Sources(a.checkpoint.store);
  await using sourcesB = new Sources(b.checkpoint.store);
  const seals = { a: sealFinder(a.checkpoint), b: sealFinder(b.checkpoint) };
  const leaves: { a: Leaf[]; b: Leaf[] } = { a: [], b: [] };
  const unused = compareUnusedScales(a, b, options.strictScales);
  const differences: RoleDifference[] = [...unused.differences];
  const findings: Finding[] = [...unused.findings];
  let [compared, recast, bytes] = [0, 0, 0];
  const casts: { readonly item: ComparedItem; readonly cast: RecastRole }[] = [];
  const dead: EmptyRole[] = [];
  const items = [...a.roles.values()].map((role) => comparedItem(role, a, b));
  await pool.each([...items, ...unused.both.map(({ item }) => item)], async (item, worker) => {
    const { key, shape, role, a: from, b: to } = item;
    const result = await new ItemComparison(options, sourcesA, sourcesB, seals, worker, item).compare();
    bytes += result.bytes;
    if (item.leaf) {
      compared++;
      if (from.dtype !== to.dtype) recast++;
      leaves.a.push({ key, dtype: from.dtype, shape, sha256: result.a, scale: from.scales });
      leaves.b.push({ key, dtype: to.dtype, shape, sha256: result.b, scale: to.scales });
    }
    if (result.message !== null) differences.push(roleDifference(item, result.message));
    else if (result.cast !== null) casts.push({ item, cast: result.cast });
    if (result.dead !== null && role !== null) dead.push({ role, tensor: to.tensor, as: result.dead });
  });
  const others = casts.map(({ cast }) => cast);
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
    findings: findings.sort((x, y) => (x.message < y.message ? -1 : 1)),
  };
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

/** Losses are counted by row only where rows have at least this number of elements; taps of a convolution have fewer. */
const LEAST_COLUMNS = 16;

/** Compares one item. */
class ItemComparison {
  readonly #o: BytesOptions;
  readonly #sources: { readonly a: Sources; readonly b: Sources };
  readonly #seals: { readonly a: FindSeal; readonly b: FindSeal };
  readonly #worker: BandWorker;
  readonly #item: ComparedItem;

  constructor(
    o: BytesOptions,
    a: Sources,
    b: Sources,
    seals: { readonly a: FindSeal; readonly b: FindSeal },
    worker: BandWorker,
    item: ComparedItem,
  ) {
    this.#o = o;
    this.#sources = { a, b };
    this.#seals = seals;
    this.#worker = worker;
    this.#item = item;
  }

  async compare() {
    const { a: from, b: to, shape } = this.#item;
    const cast =
      from.dtype === to.dtype
        ? null
        : { from: floatDTypeOf(from), to: floatDTypeOf(to), scale: scaleIn(to), sourceScale: scaleIn(from) };
    const [width, toWidth] = [widthOf(from.dtype), widthOf(to.dtype)];
    const count = countOf(shape);
    const isRole = this.#item.leaf && isFloat(from.dtype);
    let firstBad = Infinity;
    let amax = 0;
    let loss: Loss = { nonzero: 0, zeroed: 0, coarse: 0, rows: null };
    /** EmptyKind of all bands so far; null where a band has other values; undefined before the first band */
    let dead: EmptyKind | null | undefined;
    // A buffer holds the band of both sides, and space for the recast band.
    const perElement = width + toWidth + (cast === null ? 0 : toWidth);
    const bufferBytes = this.#worker.buffers[0]!.bytes.byteLength;
    const columns = cast === null || shape.length < 2 ? 0 : shape.at(-1)!;
    const unit = columns >= LEAST_COLUMNS ? rowsUnit(columns) : Infinity;
    const inRows = unit * perElement <= bufferBytes;
    await pipelineBands(
      this.#worker,
      bandsOf(count, perElement, bufferBytes, inRows ? unit : undefined),
      async (band, buffer) => {
        this.#o.signal?.throwIfAborted();
        await Promise.all([
          this.#read("a", band, buffer, 0, width),
          this.#read("b", band, buffer, (band.hi - band.lo) * width, toWidth),
        ]);
      },
      async ({ lo, hi }, buffer) => {
        const n = hi - lo;
        const [a, b] = [buffer.at, buffer.at + n * width];
        const casting =
          cast === null ? {} : { cast: { ...cast, toAt: b + n * toWidth, columns: inRows ? columns : 0 } };
        const result = await this.#worker.call({
          op: "pair",
          a,
          b,
          count: n,
          size: n * width,
          toSize: n * toWidth,
          ...casting,
          ...(isRole && dead !== null && { probe: floatDTypeOf(from) }),
        });
        if (result.differsAt >= 0) firstBad = Math.min(firstBad, lo + result.differsAt);
        amax = Math.max(amax, result.amax);
        if (result.loss !== null) loss = addLosses(loss, result.loss, inRows ? lo / columns : 0);
        dead = dead === undefined || dead === result.dead ? result.dead : null;
        this.#o.advance(n * (width + toWidth));
      },
    );
    const { source, sha256 } = await this.#worker.call({ op: "finish" });
    const message = this.#message(firstBad, cast !== null);
    await this.#refuseDamaged("a", count, source);
    // A fresh conversion that differs from its source is reported as a difference; its own digests add nothing.
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
      ? `element ${firstBad} is not the correct rounding of the source with the stored scale`
      : `the first differing element is ${firstBad}`;
  }

  #recast(amax: number, loss: Loss): RecastRole {
    const { a: from, b: to, role } = this.#item;
    const real = Math.fround(amax * (scaleIn(from) ?? 1));
    return { role, to: to.dtype, scale: scaleIn(to), amax: real, loss };
  }

  async #read(side: "a" | "b", band: Band, buffer: BandBuffer, at: number, width: number): Promise<void> {
    const { elementSource, tensor } = this.#item[side];
    const extents = gatherExtents(elementSource, band, this.#o[side].tensors, width);
    const target = buffer.bytes.subarray(at, at + (band.hi - band.lo) * width);
    await this.#sources[side].read(extents, target, this.#o.signal).catch((error) => {
      throw withLocation(error, { tensor });
    });
  }
}

/** Adds the losses of two ranges of rows; the second range starts with row `row`. */
function addLosses(first: Loss, second: Loss, row: number): Loss {
  const [before, after] = [first.rows, second.rows];
  const rows =
    after === null
      ? before
      : {
          count: (before?.count ?? 0) + after.count,
          first: Math.min(before?.first ?? Infinity, row + after.first),
          last: Math.max(before?.last ?? -1, row + after.last),
        };
  return {
    nonzero: first.nonzero + second.nonzero,
    zeroed: first.zeroed + second.zeroed,
    coarse: first.coarse + second.coarse,
    rows,
  };
}

/** The float dtype of a recast side; `refuseUncomparable` has refused other dtypes. */
function floatDTypeOf({ dtype, tensor }: ComparedSide): FloatDType {
  if (isFloat(dtype)) return dtype;
  throw new IsologitError("INTERNAL", `a recast from or to ${dtype} was planned`, { tensor });
}

/** The scale of a recast side; null where there is none. `refuseUncomparable` has refused scales per row. */
function scaleIn({ scales, tensor }: ComparedSide): number | null {
  if (scales === null || scales.length === 1) return scales?.[0] ?? null;
  throw new IsologitError("INTERNAL", "a recast with scales per row was planned", { tensor });
}

function scaleDifference(a: Float32Array | null, b: Float32Array | null): string | null {
  if (a === null || b === null) return null; // only FP8 weights have scales
  if (a.length !== b.length) return `it has ${b.length} scales, not ${a.length}`;
  const row = a.findIndex((scale, i) => scale !== b[i]);
  if (row < 0) return null;
  return `its scale${a.length > 1 ? ` of row ${row}` : ""} is ${b[row]}, not ${a[row]}`;
}

/** Checks that all roles can be compared. @throws UNSUPPORTED, naming the tensor, for a recast that this version cannot check */
export function refuseUncomparable(a: LoadedModel, b: LoadedModel): void {
  for (const role of a.roles.values()) {
    const [from, to] = [storedRole(a, role), storedRole(b, role)];
    if (from.dtype === to.dtype) continue;
    for (const [side, { dtype, tensor }, other] of [[a, from, to] as const, [b, to, from] as const]) {
      const found = !isFloat(dtype)
        ? `the tensor is ${dtype}`
        : (side.scales.scaleOf.get(tensor)?.extent ?? "tensor") !== "tensor"
          ? `the tensor is ${dtype} with several scales`
          : null;
      if (found === null) continue;
      const message = `${found}, and ${other.dtype} on the other side: this version cannot check this recast`;
      const next = "compare it with a checkpoint of the same dtype";
      throw new IsologitError("UNSUPPORTED", message, { tensor }, { next });
    }
  }
}
