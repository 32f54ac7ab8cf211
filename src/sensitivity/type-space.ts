/** All assignments of types to the tensors of a destination: their sizes, their names, and the points that they are when measured. */
import type { TypeChooser } from "../../formats/format.ts";
import type { Plan } from "../convert/types.ts";
import { bytesOf, countOf, type DType, FILE_KINDS, type FileKind } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Limits } from "../verify/limits.ts";
import type { RecipePoint } from "./report.ts";
import type { Assignment, TypedTensor } from "./typed-tensors.ts";

/** What the sizes and the names of points follow from. */
export interface Space {
  readonly tensors: readonly TypedTensor[];
  /** of the tensors without a choice */
  readonly otherBytes: number;
  /** number of weights in the tensors with a choice */
  readonly weights: number;
  /** the plain kinds of files, by their assignments */
  readonly kinds: ReadonlyMap<Assignment, FileKind>;
}

export async function spaceOf(
  { manifest }: Plan,
  tensors: readonly TypedTensor[],
  chooser: TypeChooser,
): Promise<Space> {
  const free = tensors.filter(({ types }) => types.length > 1);
  if (free.length === 0) {
    const message =
      '`recipe` "auto" finds no tensor whose type it can choose: no matrix has rows of whole blocks';
    throw new IsologitError("PLAN_IMPOSSIBLE", message);
  }
  const names = new Set(free.map(({ name }) => name));
  const others = manifest.tensors.filter(({ name }) => !names.has(name));
  const kinds = new Map<Assignment, FileKind>();
  for (const kind of Object.keys(FILE_KINDS) as FileKind[]) {
    const types = await chooser.ofKind(kind, manifest.tensors);
    const assignment = tensors.map(({ name, types: all }) => all.indexOf(types.get(name)!.dtype));
    if (!assignment.includes(-1)) kinds.set(assignment, kind);
  }
  return {
    tensors,
    otherBytes: others.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0),
    weights: free.reduce((sum, { shape }) => sum + countOf(shape), 0),
    kinds,
  };
}

/** Bytes of all typed tensors at a mean size of a weight with a choice. */
export function bytesWithin({ tensors, weights }: Space, bits: number): number {
  const fixed = tensors.filter(({ types }) => types.length === 1);
  return (bits * weights) / 8 + fixed.reduce((sum, { types, shape }) => sum + bytesOf(types[0]!, shape), 0);
}

export function pointAt(
  { tensors, otherBytes, weights, kinds }: Space,
  assignment: Assignment,
  limits: Limits,
): RecipePoint {
  const types: Partial<Record<DType, number>> = {};
  let bytes = 0;
  for (const [i, { types: all, shape }] of tensors.entries()) {
    const dtype = all[assignment[i]!]!;
    if (all.length === 1) continue;
    types[dtype] = (types[dtype] ?? 0) + 1;
    bytes += bytesOf(dtype, shape);
  }
  const kind = [...kinds].find(([own]) => own.join() === assignment.join())?.[1];
  const { klMean, klP99, top1 } = limits;
  return {
    ...{
      cast: [],
      bytes: bytes + otherBytes,
      bitsPerWeight: (8 * bytes) / weights,
      klMean,
      klP99,
      top1,
      types,
    },
    ...(kind !== undefined && { kind }),
  };
}
