/** Lists the tensors of the first differing layer, the most suspicious first, with the probable fault of each. */

import { type ModelWithScales, withDecodedValues } from "../../checkpoint/load.ts";
import { bytesOf, countOf, isDecodedBlock, isFloat, isNumeric, widthOf } from "../../core/dtype.ts";
import { widen } from "../../core/float.ts";
import { gatherExtents } from "../../core/gather.ts";
import { Sources } from "../../core/read.ts";
import type { Role } from "../../families/model.ts";
import { Rounder } from "../../inference/rounding.ts";
import type { BytesResult } from "../bytes/bytes.ts";
import { comparedItem, type RoleDifference } from "../bytes/compared-items.ts";
import { type ErrorPattern, findErrorPattern } from "./error-pattern.ts";

interface Suspect {
  readonly tensors: readonly string[];
  readonly text: string;
  readonly suspicion: number;
}

/** Tensors larger than this are listed without an analysis of the error. */
const MAX_BYTES = 512 * 1024 * 1024;
/** Most tensors analysed: in a layer of experts all may differ, and 24 show the kind of fault. */
const MOST = 24;

/**
 * Analyses the differences of one layer.
 *
 * @param found differences of one layer
 * @returns the suspects, the most suspicious first
 */
export async function suspectsAmong(
  found: readonly RoleDifference[],
  { leaves, leavesA }: Pick<BytesResult, "leaves" | "leavesA">,
  storedA: ModelWithScales,
  storedB: ModelWithScales,
): Promise<readonly Suspect[]> {
  const [a, b] = [withDecodedValues(storedA), withDecodedValues(storedB)];
  await using sourcesA = new Sources(a.checkpoint.store);
  await using sourcesB = new Sources(b.checkpoint.store);
  const sourceKeys = new Map(leavesA.map(({ key, sha256 }) => [sha256, key]));
  const digests = new Map(leaves.map(({ key, sha256 }) => [key, sha256]));
  const suspects: Suspect[] = [];
  for (const { role, key, tensors, message } of found.slice(0, MOST)) {
    if (role?.key !== key) {
      suspects.push({ tensors, text: `${key}: ${message}`, suspicion: 0.5 });
      continue;
    }
    const sourceKey = sourceKeys.get(digests.get(key)!);
    const shape: ErrorPattern =
      sourceKey === undefined || sourceKey === key
        ? await errorFor(role, a, b, sourcesA, sourcesB)
        : { kind: "permuted", text: `holds ${sourceKey}`, suspicion: 1 };
    const text = shape.kind === "none" ? message : shape.text;
    suspects.push({ tensors, text: `${tensors.at(-1)}: ${text}`, suspicion: shape.suspicion });
  }
  return suspects.sort((x, y) => y.suspicion - x.suspicion);
}

async function errorFor(
  role: Role,
  a: ModelWithScales,
  b: ModelWithScales,
  sourcesA: Sources,
  sourcesB: Sources,
): Promise<ErrorPattern> {
  const { a: from, b: to } = comparedItem(role, a, b);
  const count = countOf(role.shape);
  if (Math.max(bytesOf(from.dtype, role.shape), bytesOf(to.dtype, role.shape)) > MAX_BYTES) {
    return { kind: "other", text: "too large to analyse", suspicion: 0.5 };
  }
  const read = async (side: ModelWithScales, stored: typeof from, sources: Sources) => {
    const bytes = new Uint8Array(count * widthOf(stored.dtype));
    const extents = gatherExtents(
      stored.elementSource,
      { lo: 0, hi: count },
      side.tensors,
      widthOf(stored.dtype),
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
    isNumeric(dtype) ? widen(dtype, bytes).map((x) => x * (scales?.[0] ?? 1)) : null;
  const [left, right] = [real(source, from), real(found, to)];
  const values = left === null || right === null ? null : { expected: left, found: right };
  if (isDecodedBlock(to.dtype) && values !== null) {
    const [expected, found] = [left!, right!].map((all) => new Uint8Array(all.buffer));
    return findErrorPattern({ expected: expected!, found: found!, width: 4, shape: role.shape, values });
  }
  return findErrorPattern({ expected, found, width: widthOf(to.dtype), shape: role.shape, values });
}
