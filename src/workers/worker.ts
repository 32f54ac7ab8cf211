/** A lane's thread: casts, digests and comparisons over the memory it shares with the main thread. */
import type { Hash } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { FIRST_ADDRESS } from "../../kernels/module.ts";
import { type Caster, createCaster } from "../cast/cast.ts";
import { isFp8, widthOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { Digest } from "./digest.ts";
import type { Answer, Call, CallResults, Loss } from "./pool.ts";

const port = parentPort;
if (port === null) throw new Error("this file runs as a worker thread");
const { memory } = workerData as { memory: WebAssembly.Memory };
const caster: Caster = await createCaster(memory, FIRST_ADDRESS);

type Casting = NonNullable<Extract<Call, { op: "pair" }>["cast"]>;

let stored = new Digest();
/** Of the source's bytes, once they are not those that are stored: until then one digest is both. */
let source: Hash | undefined;

function view(at: number, size: number): Uint8Array {
  return new Uint8Array(memory.buffer, at, size);
}

function apart(): Hash {
  source ??= stored.fork();
  return source;
}

/** Index of the first element in which two bands of `count` elements differ, or -1. */
function firstDifference(left: Uint8Array, right: Uint8Array, count: number): number {
  if (Buffer.from(left.buffer, left.byteOffset, left.byteLength).equals(right)) return -1;
  return Math.floor(left.findIndex((byte, i) => byte !== right[i]) / (left.byteLength / count));
}

/** A band that loses a smaller share, and not as much as a row has, loses nothing to speak of. */
const LEAST_SHARE = 1 / 256;

/** What the cast of a band, which starts with a row, destroyed; its result lies at `toAt`. */
function lossOf({ from, to, toAt, columns }: Casting, at: number, count: number): Loss {
  const small = caster.subnormals(to, toAt, count);
  // of usual weights one in thousands is so small: the source need not be read again for them
  if (small < LEAST_SHARE * count && (columns === 0 || small < columns))
    return { nonzero: count - small, zeroed: 0, coarse: 0, rows: null };
  const [before, after] = [caster.zeros(from, at, count), caster.zeros(to, toAt, count)];
  const zeroed = after - before;
  const loss = { nonzero: count - before, zeroed, coarse: small - before };
  if (zeroed === 0 || columns === 0) return { ...loss, rows: null };
  const [width, toWidth] = [widthOf(from), widthOf(to)];
  const lost: number[] = [];
  for (let row = 0; (row + 1) * columns <= count; row++) {
    const first = row * columns;
    if (caster.zeros(to, toAt + first * toWidth, columns) < columns) continue;
    if (caster.zeros(from, at + first * width, columns) < columns) lost.push(row);
  }
  const rows = lost.length === 0 ? null : { count: lost.length, first: lost[0]!, last: lost.at(-1)! };
  return { ...loss, rows };
}

const answers: { [K in Call["op"]]: (call: Extract<Call, { op: K }>) => CallResults[K] } = {
  amax: ({ dtype, at, count }) => caster.amax(dtype, at, count),
  band: ({ at, size, cast, sealed, ofSource }) => {
    if (cast === undefined) {
      stored.update(view(at, size), sealed);
      return { overflowAt: -1 };
    }
    if (ofSource === true) apart().update(view(at, size));
    const { from, to, scale, sourceScale, toAt, toSize, count } = cast;
    const { overflowAt } = caster.cast(from, to, scale, sourceScale, at, toAt, count);
    stored.update(view(toAt, toSize), sealed);
    return { overflowAt };
  },
  finish: () => {
    const result = stored.result();
    const theirs = source?.digest("hex") ?? result.sha256;
    stored = new Digest();
    source = undefined;
    return { ...result, source: theirs };
  },
  pair: ({ a, size, b, toSize, count, cast, probe }) => {
    const dead = probe === undefined || count === 0 ? null : caster.deadness(probe, a, count);
    if (cast === undefined) {
      const differsAt = firstDifference(view(a, size), view(b, toSize), count);
      if (differsAt >= 0 || source !== undefined) apart().update(view(a, size));
      stored.update(view(b, toSize), false);
      return { differsAt, amax: 0, loss: null, dead };
    }
    apart().update(view(a, size));
    stored.update(view(b, toSize), false);
    const { from, to, scale, sourceScale, toAt } = cast;
    const amax = isFp8(to) ? caster.amax(from, a, count) : 0;
    caster.cast(from, to, scale, sourceScale, a, toAt, count);
    const loss = lossOf(cast, a, count);
    return { differsAt: firstDifference(view(toAt, toSize), view(b, toSize), count), amax, loss, dead };
  },
};

port.on("message", (call: Call & { id: number }) => {
  let answer: Answer;
  try {
    // The table's entry for `op` takes exactly the calls with that `op`.
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
