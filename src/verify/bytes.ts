/**
 * The bytes rung: both sides read back by role. Where the bits should be the same, they are compared; where the
 * destination was recast, the source is recast again under the stored scale and every code must be that one.
 */

import { throughSlots } from "../convert/bands.ts";
import type { Lane, Pool, Slot } from "../convert/pool.ts";
import type { Tensor } from "../core/checkpoint.ts";
import { countOf, type DType, type FloatDType, isFloat, isFp8, widthOf } from "../core/dtype.ts";
import { IsologitError, locate } from "../core/errors.ts";
import { type Band, bandsOf, gather, roleOrigin } from "../core/gather.ts";
import { Sources } from "../core/read.ts";
import { contentRoot, type Leaf } from "../core/root.ts";
import type { Matched, Role } from "../families/match.ts";
import { scaleOf } from "../recast/cast.ts";

/** One side of the rung. */
export interface ByteSide {
  readonly matched: Matched;
  /** stored tensor -> its scale's value */
  readonly scales: ReadonlyMap<string, number>;
}

export interface RoleDifference {
  readonly role: Role;
  /** stored tensors of both sides that hold it */
  readonly tensors: readonly string[];
  readonly message: string;
}

export interface BytesResult {
  readonly roots: { readonly a: string; readonly b: string };
  readonly compared: number;
  readonly recast: number;
  readonly bytes: number;
  readonly differences: readonly RoleDifference[];
  /** oddities that make no verdict */
  readonly findings: readonly string[];
}

interface Stored {
  readonly dtype: DType;
  readonly scale: number | null;
  readonly tensor: string;
}

export interface BytesOptions {
  readonly a: ByteSide;
  readonly b: ByteSide;
  readonly pool: Pool;
  readonly advance: (bytes: number) => void;
  readonly signal: AbortSignal | undefined;
}

export async function compareBytes(options: BytesOptions): Promise<BytesResult> {
  const { a, b, pool } = options;
  await using sourcesA = new Sources(a.matched.checkpoint.store);
  await using sourcesB = new Sources(b.matched.checkpoint.store);
  const leaves: { a: Leaf[]; b: Leaf[] } = { a: [], b: [] };
  const differences: RoleDifference[] = [];
  const findings: string[] = [];
  let [compared, recast, bytes] = [0, 0, 0];
  await pool.each([...a.matched.roles.values()], async (role, lane) => {
    const [from, to] = [storedAs(a, role), storedAs(b, role)];
    const result = await new Pair(options, sourcesA, sourcesB, lane, role, from, to).compare();
    compared++;
    if (from.dtype !== to.dtype) recast++;
    bytes += result.bytes;
    leaves.a.push({
      key: role.key,
      dtype: from.dtype,
      shape: role.shape,
      sha256: result.a,
      scale: from.scale,
    });
    leaves.b.push({ key: role.key, dtype: to.dtype, shape: role.shape, sha256: result.b, scale: to.scale });
    if (result.message !== null) {
      differences.push({ role, tensors: [...new Set([from.tensor, to.tensor])], message: result.message });
    }
    if (result.finding !== null) findings.push(`${to.tensor}: ${result.finding}`);
  });
  const order = new Map([...a.matched.roles.keys()].map((key, i) => [key, i]));
  differences.sort((x, y) => order.get(x.role.key)! - order.get(y.role.key)!);
  const roots = {
    a: contentRoot(a.matched.settings, leaves.a),
    b: contentRoot(b.matched.settings, leaves.b),
  };
  return { roots, compared, recast, bytes, differences, findings: findings.sort() };
}

/** How a side stores a role. Its first tensor speaks for all: a plan joins no unlike ones. */
export function storedAs({ matched, scales }: ByteSide, role: Role): Stored {
  const tensor: Tensor = matched.tensors.get(matched.origin.get(role.key)![0]!.of!)!;
  return { dtype: tensor.dtype, scale: scales.get(tensor.name) ?? null, tensor: tensor.name };
}

/** A scale may leave the quotient of amax by this much before it is called odd: one unit in the last place. */
const ONE_ULP = 2 ** -23;

class Pair {
  readonly #o: BytesOptions;
  readonly #sources: { readonly a: Sources; readonly b: Sources };
  readonly #lane: Lane;
  readonly #role: Role;
  readonly #from: Stored;
  readonly #to: Stored;

  constructor(o: BytesOptions, a: Sources, b: Sources, lane: Lane, role: Role, from: Stored, to: Stored) {
    this.#o = o;
    this.#sources = { a, b };
    this.#lane = lane;
    this.#role = role;
    this.#from = from;
    this.#to = to;
  }

  async compare() {
    const [from, to] = [this.#from, this.#to];
    const cast =
      from.dtype === to.dtype
        ? null
        : { from: floats(from), to: floats(to), scale: to.scale, sourceScale: from.scale };
    const [width, toWidth] = [widthOf(from.dtype), widthOf(to.dtype)];
    const count = countOf(this.#role.shape);
    let firstBad = Infinity;
    let amax = 0;
    // A slot holds both sides' bands, and room for the recast one.
    const perElement = width + toWidth + (cast === null ? 0 : toWidth);
    await throughSlots(
      this.#lane,
      bandsOf(count, perElement, this.#lane.slots[0]!.bytes.byteLength),
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
        const room = cast === null ? {} : { cast: { ...cast, toAt: b + n * toWidth } };
        const result = await this.#lane.call({
          op: "pair",
          a,
          b,
          count: n,
          size: n * width,
          toSize: n * toWidth,
          ...room,
        });
        if (result.differsAt >= 0) firstBad = Math.min(firstBad, lo + result.differsAt);
        amax = Math.max(amax, result.amax);
        this.#o.advance(n * (width + toWidth));
      },
    );
    const { source, sha256 } = await this.#lane.call({ op: "finish" });
    return {
      a: source,
      b: sha256,
      bytes: count * (width + toWidth),
      ...this.#judgement(firstBad, cast === null ? null : amax),
    };
  }

  #judgement(firstBad: number, amax: number | null): { message: string | null; finding: string | null } {
    const [from, to] = [this.#from, this.#to];
    const message = (text: string) => ({ message: text, finding: null });
    if (firstBad !== Infinity) {
      return amax === null
        ? message(`the first differing element is ${firstBad}`)
        : message(`element ${firstBad} is not the right rounding of the source under the stored scale`);
    }
    if (from.dtype === to.dtype && from.scale !== to.scale)
      return message(`its scale is ${to.scale}, not ${from.scale}`);
    if (amax === null || to.scale === null || !isFp8(to.dtype)) return { message: null, finding: null };
    const best = scaleOf(Math.fround(amax * (from.scale ?? 1)), to.dtype);
    if (to.scale < best * (1 - ONE_ULP))
      return message(`its scale ${to.scale} is below amax/max = ${best}: values are clipped`);
    const odd = to.scale > best * (1 + ONE_ULP);
    return { message: null, finding: odd ? `its scale is ${to.scale}; amax/max is ${best}` : null };
  }

  async #read(side: "a" | "b", band: Band, slot: Slot, at: number, width: number): Promise<void> {
    const { matched } = this.#o[side];
    const origin = roleOrigin(this.#role.key, countOf(this.#role.shape), matched.origin);
    const extents = gather(origin, band, matched.tensors, width);
    const target = slot.bytes.subarray(at, at + (band.hi - band.lo) * width);
    await this.#sources[side].read(extents, target, this.#o.signal).catch((error) => {
      throw locate(error, { tensor: side === "a" ? this.#from.tensor : this.#to.tensor });
    });
  }
}

function floats({ dtype, tensor }: Stored): FloatDType {
  if (isFloat(dtype)) return dtype;
  throw new IsologitError("UNSUPPORTED", `${dtype} cannot be compared with another type`, { tensor });
}
