/** The worker thread: casts, digests and comparisons in the memory that the main thread shares. */
import type { Hash } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { createBlockCaster } from "../cast/blocks.ts";
import { type Caster, createCaster, SCRATCH_BYTES } from "../cast/cast.ts";
import { createBlockEncoder } from "../cast/encode-blocks.ts";
import { blockElements, type FloatDType, isBlockTarget, isFp8, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";
import { firstFarBlock } from "./block-bound.ts";
import { blockMaxima } from "./block-maxima.ts";
import type { Answer, BandCast, Call, CallResults, Loss } from "./calls.ts";
import { createChecksum } from "./checksum.ts";
import { areExact, examineDifferences, valuesBeyond } from "./code-check.ts";
import { Digest } from "./digest.ts";
import type { Lane } from "./pool.ts";

const port = parentPort;
if (port === null) throw new Error("this file runs as a worker thread");
const { memory, at: scratchAt } = workerData as Lane; // as pool.ts passes it
const caster: Caster = await createCaster(memory, scratchAt);
const blocks = await createBlockCaster(memory, scratchAt);
const encoder = await createBlockEncoder(memory, scratchAt, caster);
const checksum = await createChecksum(memory, scratchAt + SCRATCH_BYTES);

type Casting = NonNullable<Extract<Call, { op: "pair" }>["cast"]>;

let stored = new Digest(checksum);
/** Digest of the source's bytes, from the first band that differs from the stored bytes on; before, `stored` is both. */
let source: Hash | undefined;
/** of parts of a matrix that are stored apart */
let columns: Digest[] = [];

function view(at: number, size: number): Uint8Array {
  return new Uint8Array(memory.buffer, at, size);
}

function sourceDigest(): Hash {
  source ??= stored.fork();
  return source;
}

/** No quantizer writes NaN for a number: it divided by a scale of 0. */
function refuseNaN(dtype: FloatDType, at: number, count: number): void {
  const index = caster.firstNaN(dtype, at, count);
  if (index >= 0) throw new IsologitError("NON_FINITE", "a code of the weight is NaN", { index });
}

/** @returns index of the first number that became infinite, or -1 */
function castBand(
  at: number,
  { from, to, scale, sourceScale, toAt, count }: BandCast,
  ofCodes: boolean,
): number {
  if (ofCodes) refuseNaN(from, at, count);
  if (!isBlockTarget(to)) return caster.cast(from, to, scale, sourceScale, at, toAt, count).overflowAt;
  encoder.encode(from, to, sourceScale, at, toAt, count);
  return -1;
}

/** Index of the first element in which two bands of `count` elements differ, or -1. */
function firstDifference(left: Uint8Array, right: Uint8Array, count: number): number {
  if (Buffer.from(left.buffer, left.byteOffset, left.byteLength).equals(right)) return -1;
  return Math.floor(left.findIndex((byte, i) => byte !== right[i]) / (left.byteLength / count));
}

/** What the cast of a band destroyed; the result of the cast is at `toAt`. */
function lossOf(cast: Casting, at: number, count: number): Loss {
  const { from, to, toAt } = cast;
  const [before, after] = [caster.zeros(from, at, count), caster.zeros(to, toAt, count)];
  return {
    nonzero: count - before,
    zeroed: after - before,
    coarse: caster.subnormals(to, toAt, count) - before,
    clipped: caster.clipped(cast, at, count),
  };
}

const answers: { [K in Call["op"]]: (call: Extract<Call, { op: K }>) => CallResults[K] } = {
  amax: ({ dtype, at, count }) => caster.amax(dtype, at, count),
  band: ({ at, size, cast, sealed, ofSource, ofCodes = false, probe }) => {
    const dead = probe === undefined ? null : caster.emptyKind(probe.dtype, at, probe.count);
    if (cast === undefined) {
      stored.update(view(at, size), sealed);
      return { overflowAt: -1, dead };
    }
    if (ofSource === true) sourceDigest().update(view(at, size));
    const overflowAt = castBand(at, cast, ofCodes);
    stored.update(view(cast.toAt, cast.toSize), sealed);
    return { overflowAt, dead };
  },
  columns: ({ at, rows, rowBytes, parts, sealed, cast, ofCodes = false }) => {
    const overflowAt = cast === undefined ? -1 : castBand(at, cast, ofCodes);
    const matrix = cast?.toAt ?? at;
    const bytes = new Uint8Array(memory.buffer);
    for (const [i, { from, to, toAt }] of parts.entries()) {
      const step = to - from;
      for (let row = 0, start = matrix + from; row < rows; row++, start += rowBytes)
        bytes.copyWithin(toAt + row * step, start, start + step);
      columns[i] ??= new Digest(checksum);
      columns[i].update(view(toAt, rows * step), sealed);
    }
    return { overflowAt };
  },
  blocks: ({ part, first, scales, at, rows, toAt, sealed, ofSource }) => {
    caster.forget();
    const count = rows * scales.columns;
    if (part === "observe") {
      if (first) blocks.begin(scales);
      blocks.observe(scales, at, rows);
      return { scaleBytes: 0 };
    }
    if (ofSource) sourceDigest().update(view(at, count * widthOf(scales.from)));
    let scaleBytes = 0;
    if (part === "whole") scaleBytes = blocks.castRows(scales, at, rows, toAt, toAt + count);
    else {
      if (first) scaleBytes = blocks.writeScales(scales, toAt + count);
      blocks.writeCodes(scales, at, toAt, rows);
    }
    stored.update(view(toAt, count), sealed);
    return { scaleBytes };
  },
  finish: () => {
    const result = stored.result();
    const sourceSha256 = source?.digest("hex") ?? result.sha256;
    const ofColumns = columns.map((digest) => digest.result());
    stored = new Digest(checksum);
    source = undefined;
    columns = [];
    return { ...result, source: sourceSha256, columns: ofColumns };
  },
  pair: ({ a, size, b, toSize, count, cast, probe }) => {
    const dead = probe === undefined || count === 0 ? null : caster.emptyKind(probe, a, count);
    if (cast === undefined) {
      const differsAt = firstDifference(view(a, size), view(b, toSize), count);
      if (differsAt >= 0 || source !== undefined) sourceDigest().update(view(a, size));
      stored.update(view(b, toSize), false);
      return { differsAt, amax: 0, dead, error: null };
    }
    sourceDigest().update(view(a, size));
    stored.update(view(b, toSize), false);
    const { from, to, scale, sourceScale, toAt, bounded, exact, columns } = cast;
    const amax = isFp8(to) ? caster.amax(from, a, count) : 0;
    caster.cast(from, to, scale, sourceScale, a, toAt, count);
    const [nearest, found] = [view(toAt, toSize), view(b, toSize)];
    const loss = lossOf(cast, a, count);
    const sums = caster.errors(cast, a, b, count, columns || count);
    const isExact = exact === true && isFp8(to) && areExact(floats(a, count), to, scale ?? 1, found);
    const differsAt = firstDifference(nearest, found, count);
    if (differsAt < 0) {
      const error = { loss, notNearest: 0, beyond: 0, isExact, sums };
      return { differsAt, amax, dead, error };
    }
    const {
      zeroed,
      notNearest,
      beyond,
      differsAt: beyondAt,
    } = examineDifferences(view(a, size), cast, nearest, found);
    const error = { loss: { ...loss, zeroed: loss.zeroed + zeroed }, notNearest, beyond, isExact, sums };
    if (bounded === true && isFp8(to)) return { differsAt: beyondAt, amax, dead, error };
    // every element must be the nearest, and every zero have its sign
    return { differsAt, amax, dead, error: { ...error, notNearest: 0, beyond: notNearest + beyond } };
  },
  blocksOf: ({ a, from, size, b, count, blocks: type, columns, sourceScale, exact }) => {
    sourceDigest().update(view(a, size));
    let other = -1;
    if (exact !== undefined) {
      encoder.encode(from, exact.type, sourceScale, a, exact.toAt, count);
      const found = firstDifference(view(exact.at, exact.size), view(exact.toAt, exact.size), count);
      if (found >= 0) other = found - (found % blockElements(type));
    }
    const cast = { from, to: "F32", scale: null, sourceScale } as const;
    const sums = caster.errors(cast, a, b, count, blockElements(type));
    const far = firstFarBlock(type, sums);
    const zeros = caster.zeros(from, a, count);
    const zeroed = Math.max(0, caster.zeros("F32", b, count) - zeros);
    const loss = { nonzero: count - zeros, zeroed, coarse: 0, clipped: 0 };
    const rows = addPairs(sums, (columns || count) / blockElements(type));
    return {
      differsAt: exact === undefined && far >= 0 ? far * blockElements(type) : other,
      amax: 0,
      dead: null,
      error: { loss, notNearest: 0, beyond: 0, isExact: false, sums: rows },
    };
  },
  bound: ({ a, from, size, b, scales: scalesAt, count, codes, columns, sourceScale, blocks }) => {
    sourceDigest().update(view(a, size));
    stored.update(view(b, 4 * count), false);
    const weights = widen(from, view(a, size));
    const factor = sourceScale ?? 1;
    if (factor !== 1) for (let i = 0; i < count; i++) weights[i] = weights[i]! * factor;
    const scales = floats(scalesAt, count);
    const { differsAt, ...odd } = valuesBeyond(
      weights,
      floats(b, count),
      scales,
      codes,
      blocks === undefined,
    );
    const maxima = blocks === undefined ? null : blockMaxima(weights, scales, blocks.lo, blocks);
    const cast = { from, to: "F32", scale: null, sourceScale } as const;
    const error = { ...odd, sums: caster.errors(cast, a, b, count, columns || count) };
    return { differsAt, amax: caster.amax(from, a, count), dead: null, error, maxima };
  },
};

/** Sums of pairs of numbers, `each` pairs at a time: the errors of rows from those of their blocks. */
function addPairs(sums: Float64Array, each: number): Float64Array {
  const added = new Float64Array(sums.length / each);
  for (let i = 0; i < sums.length; i++) added[2 * Math.floor(i / 2 / each) + (i % 2)]! += sums[i]!;
  return added;
}

/** F32 elements at any address. */
function floats(at: number, count: number): Float32Array {
  return at % 4 === 0 ? new Float32Array(memory.buffer, at, count) : widen("F32", view(at, 4 * count));
}

port.on("message", (call: Call & { id: number }) => {
  let answer: Answer;
  try {
    // the entry of the table for `op` takes exactly the calls with that `op`
    answer = { id: call.id, value: (answers[call.op] as (call: Call) => unknown)(call) };
  } catch (error) {
    const { code, at } = error instanceof IsologitError ? error : { code: "INTERNAL" as const, at: {} };
    answer = {
      id: call.id,
      error: { code, at, message: error instanceof Error ? error.message : String(error) },
    };
  }
  port.postMessage(answer);
});
