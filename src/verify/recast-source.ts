/** The source as the destination stores it: how each weight of the source is rounded for the run `recastSource`. */
import {
  decodeWeights,
  isSameForm,
  type LoadedModel,
  type ModelWithScales,
  storedRole,
} from "../checkpoint/load.ts";
import { type DType, isDecodedBlock, isFloat, widthOf } from "../core/dtype.ts";
import { gatherExtents } from "../core/gather.ts";
import { boxMove, invertMoves, type Move, runsOf } from "../core/mapping/moves.ts";
import type { Sources } from "../core/read.ts";
import type { Role } from "../families/model.ts";
import type { RoundedUnit, Rounding, RowRounding } from "../inference/rounding.ts";
import { columnsOf } from "../inference/weight-bands.ts";

/** Dtypes of the weights that `b` stores in another form than `a`; for codes, the dtype of the codes. */
export function recastDtypes(a: LoadedModel, b: LoadedModel): ReadonlySet<DType> {
  const forms = [...a.roles.values()].map((role) => [storedRole(a, role), storedRole(b, role)] as const);
  return new Set(forms.filter(([from, to]) => !isSameForm(from, to)).map(([, to]) => to.dtype));
}

/**
 * For each stored tensor of `a`: the rounding of the rows whose roles `b` stores in another form. A weight whose codes are not
 * all the nearest ones, which has several scales, which is or was a quantised type of ggml, or of which `a` stores a function, is read
 * from `b`: the bytes rung has compared it with the source.
 *
 * @param notNearest roles with codes that are not the nearest ones
 * @param sources    files of the store of `decodeWeights(b)` with blocks
 */
export function roundingsFor(
  a: LoadedModel,
  b: ModelWithScales,
  notNearest: ReadonlySet<string>,
  sources: Sources,
): ReadonlyMap<string, readonly RowRounding[]> {
  const decoded = decodeWeights(b, { blocks: true });
  return roundingsByRow(a, (role) => {
    const [from, to] = [storedRole(a, role), storedRole(b, role)];
    const read = storedRole(decoded, role);
    if (isSameForm(from, to) || !isFloat(read.dtype)) return null;
    const isFunction = a.transformed.has(from.tensor);
    const isRead =
      read.dtype !== to.dtype || isDecodedBlock(from.dtype) || notNearest.has(role.key) || isFunction;
    const recast = {
      to: read.dtype,
      scale: decoded.scales.scaleOf.has(to.tensor) ? (b.scaleValues.get(to.tensor)?.[0] ?? null) : null,
      ...(isRead && { read: readerOf(a, decoded, role, sources) }),
    };
    return { unit: role.key, versions: { recast } };
  });
}

/**
 * For each stored tensor of a model: the roundings of its rows, in order.
 *
 * @param roundingOf null for a role that is not rounded
 */
export function roundingsByRow(
  { roles, roleSources, tensors }: LoadedModel,
  roundingOf: (role: Role) => RoundedUnit | null,
): ReadonlyMap<string, readonly RowRounding[]> {
  const roundings = new Map<string, RowRounding[]>();
  for (const role of roles.values()) {
    const rounded = roundingOf(role);
    if (rounded === null) continue;
    for (const move of roleSources.get(role.key)!) {
      const columns = columnsOf(tensors.get(move.of!)!.shape);
      const rows = roundings.get(move.of!) ?? [];
      for (const run of runsOf(boxMove(move), -Infinity, Infinity)) {
        const [lo, hi] = [Math.floor(run.from / columns), Math.ceil((run.from + run.count) / columns)];
        rows.push({ lo, hi, rounded });
      }
      roundings.set(move.of!, rows);
    }
  }
  return new Map([...roundings].map(([key, rows]) => [key, joinRows(rows)]));
}

/** The rows in order, neighbours of one role as one range. A role may hold rows in another order than its tensor. */
function joinRows(rows: readonly RowRounding[]): readonly RowRounding[] {
  const joined: RowRounding[] = [];
  for (const row of [...rows].sort((left, right) => left.lo - right.lo)) {
    const last = joined.at(-1);
    if (last?.rounded === row.rounded && last.hi >= row.lo)
      joined[joined.length - 1] = { ...last, hi: Math.max(last.hi, row.hi) };
    else joined.push(row);
  }
  return joined;
}

/** Reads the elements of a role from `b`, in the order in which a tensor of `a` stores them. */
export function readerOf(
  a: LoadedModel,
  b: LoadedModel,
  role: Role,
  sources: Sources,
): NonNullable<Rounding["read"]> {
  const movesOf = new Map<string, readonly Move[]>();
  return async (key, lo, hi, target, signal) => {
    const moves = movesOf.get(key) ?? invertMoves(a.roleSources.get(role.key)!, role.key).get(key)!;
    movesOf.set(key, moves);
    const width = widthOf(storedRole(b, role).dtype);
    const extents = gatherExtents({ moves, roles: b.roleSources }, { lo, hi }, b.tensors, width);
    await sources.read(extents, target, signal);
  };
}
