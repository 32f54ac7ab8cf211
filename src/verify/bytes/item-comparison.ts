/**
 * Compares one item, band by band. Where both sides have one form, the bits must be equal. Where the destination has another
 * dtype, the source is cast with the stored scale, and every code must equal the result or, for files of other tools, be
 * within the bound of a rounding. Values decoded with scales of rows or blocks are compared by that bound too.
 */
import type { EmptyKind } from "../../cast/cast.ts";
import type { ModelWithScales } from "../../checkpoint/load.ts";
import { refuseDamaged, sealOfElements } from "../../checkpoint/tensor-digests.ts";
import {
  blockElements,
  countOf,
  type DecodedBlock,
  type FloatDType,
  isBlockTarget,
  isFloat,
  isFnuz,
  widthOf,
} from "../../core/dtype.ts";
import { IsologitError, withLocation } from "../../core/errors.ts";
import {
  type Band,
  bandsOf,
  type ElementSource,
  readElements,
  rowsUnit,
  wholeTensorOf,
} from "../../core/gather.ts";
import type { Sources } from "../../core/read.ts";
import type { FindSeal } from "../../core/sealed-spans.ts";
import type { Call, Loss } from "../../workers/calls.ts";
import { roundingBound } from "../../workers/code-bound.ts";
import { pipelineBands } from "../../workers/pipeline.ts";
import type { BandBuffer, BandWorker } from "../../workers/pool.ts";
import { type EqualContent, type EqualTensors, pairKey } from "../pairs/equal-digests.ts";
import { BlockScaleCheck } from "./block-scales.ts";
import { type ComparedItem, type ComparedSide, storedWidth } from "./compared-items.ts";
import { ErrorMeter } from "./recast-error.ts";
import type { RecastMeasures, RecastRole } from "./scales.ts";

/** What comparisons of items share. */
export interface ItemContext {
  /** results of `withDecodedValues` */
  readonly a: ModelWithScales;
  readonly b: ModelWithScales;
  readonly sources: { readonly a: Sources; readonly b: Sources };
  readonly seals: { readonly a: FindSeal; readonly b: FindSeal };
  /** b was written by this version from a: every code must be the nearest */
  readonly strictScales: boolean;
  /** pairs of tensors that were compared already */
  readonly equal: EqualContent;
  readonly advance: (bytes: number) => void;
  readonly signal: AbortSignal | undefined;
}

/** The result of one comparison: plain data, which another process can judge. */
export interface ComparedContent {
  /** SHA-256 of the elements of both sides, for their leaves */
  readonly a: string;
  readonly b: string;
  /** bytes that were read */
  readonly bytes: number;
  /** how the two sides differ; null: not at all */
  readonly message: string | null;
  /** null if b was not recast from a */
  readonly cast: RecastMeasures | null;
  /** all elements of a are 0 or NaN */
  readonly dead: EmptyKind | null;
}

/** How b is computed from a. */
type Recast =
  | { readonly kind: "none" }
  | { readonly kind: "cast"; readonly from: FloatDType; readonly to: FloatDType }
  | { readonly kind: "blocks"; readonly from: FloatDType; readonly blocks: DecodedBlock }
  | {
      readonly kind: "bound";
      readonly from: FloatDType;
      readonly decoded: Extract<ComparedSide["decoded"], { kind: "codes" }>;
    };

/** Losses are counted by row only where rows have at least this number of elements; taps of a convolution have fewer. */
const LEAST_COLUMNS = 16;

/** Compares one item. */
export class ItemComparison {
  readonly #o: ItemContext;
  readonly #worker: BandWorker;
  readonly #item: ComparedItem;
  readonly #recast: Recast;

  constructor(context: ItemContext, worker: BandWorker, item: ComparedItem) {
    this.#o = context;
    this.#worker = worker;
    this.#item = item;
    this.#recast = recastOf(item);
  }

  async compare(): Promise<ComparedContent> {
    const { a: from, b: to, shape } = this.#item;
    const [width, toWidth] = [widthOf(from.dtype), widthOf(to.dtype)];
    const count = countOf(shape);
    const bytesEach = storedWidth(from) + storedWidth(to);
    let firstBad = Infinity;
    let [amax, notNearest] = [0, 0];
    // A relabelled weight has the values of its FNUZ codes: its scale is half of theirs, and is not derived from amax.
    let isRelabelled = this.#recast.kind !== "none" && hasFnuz(from);
    let loss: Loss = { nonzero: 0, zeroed: 0, coarse: 0, clipped: 0 };
    const ownScales =
      this.#recast.kind === "bound" && this.#o.strictScales
        ? new BlockScaleCheck(this.#recast.decoded.hasExponents)
        : null;
    const known = this.#known(count);
    /** EmptyKind of all bands so far; null where a band has other values; undefined before the first band */
    let dead: EmptyKind | null | undefined = known?.dead;
    // A buffer holds the band of both sides, and space for the recast band or for the scales of b.
    const isRecast = this.#recast.kind !== "none";
    const exact = this.#exactWidth();
    const perElement = width + toWidth + (exact > 0 ? 2 * exact : isRecast ? toWidth : 0);
    const bufferBytes = this.#worker.buffers[0]!.bytes.byteLength;
    const columns = !isRecast || shape.length < 2 ? 0 : shape.at(-1)!;
    const unit = columns >= LEAST_COLUMNS ? rowsUnit(columns) : Infinity;
    const inRows = unit * perElement <= bufferBytes;
    const errors = isRecast ? this.#errorMeter(inRows ? count / columns : 0) : null;
    await pipelineBands(
      this.#worker,
      known === undefined ? bandsOf(count, perElement, bufferBytes, inRows ? unit : undefined) : [],
      (band, buffer) => this.#readBand(band, buffer, width, toWidth),
      async (band, buffer) => {
        const n = band.hi - band.lo;
        const call = this.#call(band, buffer.at, inRows ? columns : 0, dead !== null);
        const result = await this.#worker.call(call);
        if ("maxima" in result && result.maxima !== null) ownScales?.add(result.maxima);
        if (result.differsAt >= 0) firstBad = Math.min(firstBad, band.lo + result.differsAt);
        amax = Math.max(amax, result.amax);
        if (result.error !== null) {
          notNearest += result.error.notNearest;
          isRelabelled &&= result.error.isExact;
          loss = addLosses(loss, result.error.loss);
          errors?.add(result.error, n, inRows);
        }
        dead = dead === undefined || dead === result.dead ? result.dead : null;
        this.#o.advance(n * bytesEach);
      },
    );
    if (known !== undefined) this.#o.advance(count * bytesEach);
    const { source, sha256 } =
      known === undefined ? await this.#worker.call({ op: "finish" }) : { ...known, source: known.sha256 };
    const ownMessage = isRelabelled ? null : (ownScales?.finish() ?? null);
    const message = this.#message(firstBad, notNearest) ?? ownMessage;
    const digestA = await this.#digestOf("a", count, source);
    // A fresh conversion that differs from its source is reported as a difference; its own digests add nothing.
    const isOwn = this.#o.strictScales && message !== null;
    const digestB = isOwn ? sha256 : await this.#digestOf("b", count, sha256);
    return {
      ...{ a: digestA, b: digestB, message },
      bytes: count * bytesEach,
      cast: errors && {
        amax: this.#realAmax(amax),
        loss,
        notNearest,
        count,
        isRelabelled,
        ...errors.finish(),
      },
      dead: dead ?? null,
    };
  }

  /** What is known of both sides, if each is a whole tensor that stores values, and the two were found equal. */
  #known(count: number): EqualTensors | undefined {
    const { a, b, isRecast } = this.#item;
    if (isRecast || a.decoded !== undefined || b.decoded !== undefined) return undefined;
    const [left, right] = [a, b].map(({ elementSource }) => wholeTensorOf(elementSource, count) ?? "");
    if (this.#o.a.transformed.has(left!) || this.#o.b.transformed.has(right!)) return undefined;
    const known = this.#o.equal.get(pairKey(left!, right!));
    return known?.dtype === a.dtype && known.elements === count ? known : undefined;
  }

  /** Bytes of an element in stored blocks whose bytes are compared with those of the encoder; 0 if they are not. */
  #exactWidth(): number {
    if (!this.#o.strictScales || this.#recast.kind !== "blocks") return 0;
    const { blocks } = this.#recast;
    return isBlockTarget(blocks) ? widthOf(blocks) : 0;
  }

  /** @param columns elements of a row, if bands are whole rows; else 0 */
  #call(
    { lo, hi }: Band,
    a: number,
    columns: number,
    probed: boolean,
  ): Extract<Call, { op: "pair" | "bound" | "blocksOf" }> {
    const { a: from, b: to, leaf } = this.#item;
    const count = hi - lo;
    const [size, toSize] = [count * widthOf(from.dtype), count * widthOf(to.dtype)];
    const b = a + size;
    const third = b + toSize;
    const sourceScale = this.#recast.kind === "none" ? null : scaleIn(from);
    if (this.#recast.kind === "blocks") {
      const { from: dtype, blocks } = this.#recast;
      const call = { op: "blocksOf", a, from: dtype, size, sourceScale, b, count, blocks, columns } as const;
      if (this.#exactWidth() === 0 || !isBlockTarget(blocks)) return call;
      const stored = count * this.#exactWidth();
      return { ...call, exact: { type: blocks, at: third, size: stored, toAt: third + stored } };
    }
    if (this.#recast.kind === "bound") {
      const { from: dtype, decoded } = this.#recast;
      const bands = { a, from: dtype, size, sourceScale, b, scales: third, count };
      const blocks = { lo, columns: this.#item.shape.at(-1)!, block: decoded.block };
      const strict = this.#o.strictScales ? { blocks } : {};
      return { op: "bound", ...bands, codes: decoded.dtype, columns, ...strict };
    }
    const pair = { op: "pair", a, b, count, size, toSize } as const;
    const probe = probed && leaf && isFloat(from.dtype) ? { probe: from.dtype } : {};
    if (this.#recast.kind === "none") return { ...pair, ...probe };
    const { from: dtype, to: toDtype } = this.#recast;
    const bounded = !this.#o.strictScales;
    const scales = { scale: scaleIn(to), sourceScale };
    const cast = { from: dtype, to: toDtype, ...scales, toAt: third, columns, bounded, exact: hasFnuz(from) };
    return { ...pair, ...probe, cast };
  }

  /** SHA-256 for the leaf of one side. Compares the digest of what is stored with the digest that the format stores. */
  async #digestOf(side: "a" | "b", count: number, read: string): Promise<string> {
    const { seals, sources, signal } = this.#o;
    const { decoded, elementSource } = this.#item[side];
    const source = decoded?.codes ?? elementSource;
    const seal = sealOfElements(source, count, this.#o[side].tensors, seals[side]);
    // the leaf of values that blocks of scales decode is that of the values; all others are those of what is stored
    const isOfValues = decoded?.kind === "codes" && decoded.rowScales === null;
    const needsCodes = decoded !== undefined && (seal !== undefined || !isOfValues);
    const stored = needsCodes ? await this.#digestCodes(side, source, count) : read;
    await refuseDamaged(seal, { sha256: stored }, sources[side], signal);
    return isOfValues ? read : stored;
  }

  async #digestCodes(side: "a" | "b", codes: ElementSource, count: number): Promise<string> {
    const width = storedWidth(this.#item[side]);
    await pipelineBands(
      this.#worker,
      bandsOf(count, width, this.#worker.buffers[0]!.bytes.byteLength),
      (band, buffer) => this.#read(side, codes, band, buffer, 0, width),
      async ({ lo, hi }, buffer) => {
        await this.#worker.call({ op: "band", at: buffer.at, size: (hi - lo) * width, sealed: false });
      },
    );
    return (await this.#worker.call({ op: "finish" })).sha256;
  }

  #message(firstBad: number, notNearest: number): string | null {
    const { a: from, b: to } = this.#item;
    if (this.#o.strictScales && notNearest > 0)
      return `${notNearest} codes are not the nearest with the stored scales`;
    if (firstBad === Infinity)
      return this.#recast.kind === "none" ? scaleDifference(from.scales, to.scales) : null;
    if (this.#recast.kind === "none") return `the first differing element is ${firstBad}`;
    if (this.#recast.kind === "blocks") {
      const block = blockElements(this.#recast.blocks);
      if (this.#exactWidth() > 0)
        return `elements ${firstBad} to ${firstBad + block - 1} are not the block that the source gives`;
      return `elements ${firstBad} to ${firstBad + block - 1} are too far from the source to be a quantisation of it`;
    }
    const isExact = this.#recast.kind === "cast" && this.#o.strictScales;
    return isExact
      ? `element ${firstBad} is not the correct rounding of the source with the stored scale`
      : `element ${firstBad} is not a rounding of the source with the stored scale`;
  }

  #realAmax(amax: number): number {
    return Math.fround(amax * (scaleIn(this.#item.a) ?? 1));
  }

  /** @param rows 0 if rows are not examined */
  #errorMeter(rows: number): ErrorMeter {
    const { role, b } = this.#item;
    const parts = rows > 0 ? role?.spec.parts?.(this.#o.a.dims) : undefined;
    return new ErrorMeter(rows, parts, roundingBound(castDType(b)));
  }

  async #readBand(band: Band, buffer: BandBuffer, width: number, toWidth: number): Promise<void> {
    this.#o.signal?.throwIfAborted();
    const { a, b } = this.#item;
    const count = band.hi - band.lo;
    const reads = [
      this.#read("a", a.elementSource, band, buffer, 0, width),
      this.#read("b", b.elementSource, band, buffer, count * width, toWidth),
    ];
    if (this.#exactWidth() > 0)
      reads.push(
        this.#read("b", b.decoded!.codes, band, buffer, count * (width + toWidth), this.#exactWidth()),
      );
    if (this.#recast.kind === "bound") {
      const { scales } = this.#recast.decoded;
      reads.push(this.#read("b", scales, band, buffer, count * (width + toWidth), 4));
    }
    await Promise.all(reads);
  }

  async #read(
    side: "a" | "b",
    source: ElementSource,
    band: Band,
    buffer: BandBuffer,
    at: number,
    width: number,
  ): Promise<void> {
    const { tensors } = this.#o[side];
    const target = buffer.bytes.subarray(at, at + (band.hi - band.lo) * width);
    await readElements(source, band, tensors, width, this.#o.sources[side], target, this.#o.signal).catch(
      (error) => {
        throw withLocation(error, { tensor: this.#item[side].tensor });
      },
    );
  }
}

/** A recast item with what its bands gave. */
export function recastRole({ role, b }: ComparedItem, measures: RecastMeasures): RecastRole {
  return { ...measures, role, tensor: b.tensor, to: castDType(b), scale: scaleIn(b) };
}

/** Whether a side has decoded FNUZ codes. */
function hasFnuz({ decoded }: ComparedSide): boolean {
  return decoded?.kind === "codes" && isFnuz(decoded.dtype);
}

function recastOf({ a, b, isRecast }: ComparedItem): Recast {
  if (!isRecast) return { kind: "none" };
  if (b.decoded?.kind === "blocks") return { kind: "blocks", from: floatDTypeOf(a), blocks: b.decoded.dtype };
  if (b.decoded !== undefined) return { kind: "bound", from: floatDTypeOf(a), decoded: b.decoded };
  return { kind: "cast", from: floatDTypeOf(a), to: floatDTypeOf(b) };
}

function addLosses(first: Loss, second: Loss): Loss {
  return {
    nonzero: first.nonzero + second.nonzero,
    zeroed: first.zeroed + second.zeroed,
    coarse: first.coarse + second.coarse,
    clipped: first.clipped + second.clipped,
  };
}

/** The float dtype of a recast side; `refuseUncomparable` has refused other dtypes. */
function floatDTypeOf({ dtype, tensor }: ComparedSide): FloatDType {
  if (isFloat(dtype)) return dtype;
  throw new IsologitError("INTERNAL", `a recast from or to ${dtype} was planned`, { tensor });
}

/** The dtype of a recast side in the checkpoint. */
function castDType(side: ComparedSide): RecastRole["to"] {
  return side.decoded?.dtype ?? floatDTypeOf(side);
}

/** The scale of a recast side; null where there is none. Weights with several scales are decoded, and have none. */
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
