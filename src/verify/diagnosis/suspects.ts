/** Which tensors of the first bad layer are to blame, the likeliest first, and what seems to have happened to each. */

import type { ModelWithScales } from "../../checkpoint/load.ts";
import { bytesOf, countOf, isFloat, widthOf } from "../../core/dtype.ts";
import { widen } from "../../core/float.ts";
import { gatherExtents } from "../../core/gather.ts";
import { Sources } from "../../core/read.ts";
import type { Role } from "../../families/model.ts";
import { Rounder } from "../../inference/rounding.ts";
import type { BytesResult } from "../bytes/bytes.ts";
import { comparedRole, type RoleDifference } from "../bytes/compared-items.ts";
import { type ErrorShape, shapeOfError } from "./error-pattern.ts";

export interface Suspect {
  readonly tensors: readonly string[];
  readonly text: string;
  readonly suspicion: number;
}

/** Larger tensors are named without a look at the shape of their error. */
const MAX_BYTES = 512 * 1024 * 1024;
/** A layer of experts may differ in all of them: enough to see what happened. */
const MOST = 24;

/** @param found differences of one layer */
export async function suspectsAmong(
  found: readonly RoleDifference[],
  { leaves, leavesA }: Pick<BytesResult, "leaves" | "leavesA">,
  a: ModelWithScales,
  b: ModelWithScales,
): Promise<readonly Suspect[]> {
  await using sourcesA = new Sources(a.checkpoint.store);
  await using sourcesB = new Sources(b.checkpoint.store);
  const homes = new Map(leavesA.map(({ key, sha256 }) => [sha256, key]));
  const digests = new Map(leaves.map(({ key, sha256 }) => [key, sha256]));
  const suspects: Suspect[] = [];
  for (const { role, key, tensors, message } of found.slice(0, MOST)) {
    if (role?.key !== key) {
      suspects.push({ tensors, text: `${key}: ${message}`, suspicion: 0.5 });
      continue;
    }
    const home = homes.get(digests.get(key)!);
    const shape: ErrorShape =
      home === undefined || home === key
        ? await shapeFor(role, a, b, sourcesA, sourcesB)
        : { kind: "permuted", text: `holds ${home}`, suspicion: 1 };
    const text = shape.kind === "none" ? message : shape.text;
    suspects.push({ tensors, text: `${tensors.at(-1)}: ${text}`, suspicion: shape.suspicion });
  }
  return suspects.sort((x, y) => y.suspicion - x.suspicion);
}

async function shapeFor(
  role: Role,
  a: ModelWithScales,
  b: ModelWithScales,
  sourcesA: Sources,
  sourcesB: Sources,
): Promise<ErrorShape> {
  const [from, to] = [comparedRole(role, a), comparedRole(role, b)];
  const count = countOf(role.shape);
  if (Math.max(bytesOf(from.dtype, role.shape), bytesOf(to.dtype, role.shape)) > MAX_BYTES) {
    return { kind: "other", text: "too large to be looked at whole", suspicion: 0.5 };
  }
  const read = async (side: ModelWithScales, half: typeof from, sources: Sources) => {
    const bytes = new Uint8Array(count * widthOf(half.dtype));
    const extents = gatherExtents(
      half.elementSource,
      { lo: 0, hi: count },
      side.tensors,
      widthOf(half.dtype),
    );
    await sources.read(extents, bytes);
    return bytes;
  };
  const source = await read(a, from, sourcesA);
  const found = await read(b, to, sourcesB);
  const scale = to.scales?.[0] ?? null;
  let expected = source;
  if (from.dtype !== to.dtype && isFloat(from.dtype) && isFloat(to.dtype)) {
    const rounded = new Uint8Array(found.byteLength);
    const rounder = await Rounder.create();
    rounder.round(source, from.dtype, from.scales?.[0] ?? 1, { to: to.dtype, scale }, rounded);
    expected = rounded;
  }
  const real = (bytes: Uint8Array, { dtype, scales }: typeof from) =>
    isFloat(dtype) ? widen(dtype, bytes).map((x) => x * (scales?.[0] ?? 1)) : null;
  const [left, right] = [real(source, from), real(found, to)];
  const values = left === null || right === null ? null : { expected: left, found: right };
  return shapeOfError({ expected, found, width: widthOf(to.dtype), shape: role.shape, values });
}
