/** The items that the bytes rung compares: roles, and scales that no role reads. */

import { decodedKey, isSameForm, type ModelWithScales, storedRole } from "../../checkpoint/load.ts";
import { areExponents } from "../../checkpoint/scales/values.ts";
import type { Tensor } from "../../core/checkpoint.ts";
import type { Leaf } from "../../core/content-root.ts";
import {
  bitsOf,
  countOf,
  type DecodedBlock,
  type DType,
  isDecodedBlock,
  type Shape,
} from "../../core/dtype.ts";
import { type ElementSource, roleSource } from "../../core/gather.ts";
import { type Role, roleElements } from "../../families/model.ts";
import type { CodeDType } from "../../workers/code-bound.ts";

/** One item to compare. */
export interface ComparedItem {
  readonly key: string;
  readonly role: Role | null;
  readonly shape: Shape;
  /** whether this item is a leaf of the content root */
  readonly leaf: boolean;
  /** b stores the item in another form than a */
  readonly isRecast: boolean;
  readonly a: ComparedSide;
  readonly b: ComparedSide;
}

/** An item as it is read from one side. */
export interface ComparedSide {
  readonly tensor: string;
  /** dtype of the elements that are read: F32 for decoded values */
  readonly dtype: DType;
  /** scales of the elements that are read; null where there are none */
  readonly scales: Float32Array | null;
  readonly elementSource: ElementSource;
  /** set if the elements are decoded values */
  readonly decoded?: DecodedBlocks | DecodedCodes;
}

/** The blocks of a quantised type of ggml that decoded values come from; they hold their scales. */
interface DecodedBlocks {
  readonly kind: "blocks";
  readonly dtype: DecodedBlock;
  readonly codes: ElementSource;
}

/** The codes with scales beside them that decoded values come from. */
interface DecodedCodes {
  readonly kind: "codes";
  readonly dtype: CodeDType;
  readonly codes: ElementSource;
  /** the scale of each element, F32 */
  readonly scales: ElementSource;
  /** rows and columns that share a scale */
  readonly block: readonly [rows: number, columns: number];
  /** scales are powers of two */
  readonly hasExponents: boolean;
  /** the stored scales, if there is one for each row; null for those of blocks */
  readonly rowScales: Float32Array | null;
}

/** A role as one side stores it: the numbers as stored, with their scales. */
function comparedRole(role: Role, side: ModelWithScales): ComparedSide {
  const { dtype, tensor } = storedRole(side, role);
  const elementSource = roleElements(side, role);
  return { dtype, tensor, scales: side.scaleValues.get(tensor) ?? null, elementSource };
}

/**
 * A role as values: those of weights with several scales are decoded.
 *
 * @param side result of `withDecodedValues`
 */
function comparedValues(role: Role, side: ModelWithScales): ComparedSide {
  const stored = comparedRole(role, side);
  const { tensor, dtype } = stored;
  if (!side.tensors.has(decodedKey(tensor))) return stored;
  const sourceOf = (part: "value" | "scale") => {
    const moves = side.roleSources.get(role.key)!;
    const decoded = moves.map((move) => ({ ...move, of: decodedKey(move.of!, part) }));
    return roleSource(role.key, countOf(role.shape), new Map([[role.key, decoded]]));
  };
  const values = { tensor, dtype: "F32", scales: null, elementSource: sourceOf("value") } as const;
  const codes = stored.elementSource;
  if (isDecodedBlock(dtype)) return { ...values, decoded: { kind: "blocks", dtype, codes } };
  const scale = side.scales.scaleOf.get(side.tensors.get(tensor)!.name)!; // encoded weights of other types have scales
  return {
    ...values,
    decoded: {
      kind: "codes",
      dtype: dtype as CodeDType, // the dtypes of encoded weights
      codes,
      scales: sourceOf("scale"),
      block: scale.block,
      hasExponents: areExponents(side.tensors.get(scale.tensor)!),
      rowScales: stored.scales,
    },
  };
}

/** All elements of a stored tensor, in stored order. */
export function comparedTensor({ name, dtype, shape }: Tensor): ComparedSide {
  const whole = { of: name, size: [countOf(shape)], fromAt: 0, from: [1], toAt: 0, to: [1] };
  return {
    tensor: name,
    dtype,
    scales: null,
    elementSource: { moves: [whole], roles: new Map([[name, [whole]]]) },
  };
}

/** A role as its leaf in the content root has it: stored numbers with their scales, or the values of codes in blocks. */
export function leafSide(role: Role, side: ModelWithScales): ComparedSide {
  return storedRole(side, role).scaled?.extent === "block"
    ? comparedValues(role, side)
    : comparedRole(role, side);
}

/** The stored scales of decoded values, if there is one for each row. */
function rowScalesOf(decoded: ComparedSide["decoded"]): Float32Array | null {
  return decoded?.kind === "codes" ? decoded.rowScales : null;
}

/** The leaf of a side: its codes with their scales, if there are one or one for each row, else its values. */
export function leafOf(
  { key, shape }: Pick<Role, "key" | "shape">,
  { dtype, scales, decoded }: ComparedSide,
  sha256: string,
): Leaf {
  return { key, shape, sha256, dtype: decoded?.dtype ?? dtype, scale: rowScalesOf(decoded) ?? scales };
}

/** Bytes of one element in the checkpoint, without its scale. */
export function storedWidth({ dtype, decoded }: ComparedSide): number {
  return bitsOf(decoded?.dtype ?? dtype) / 8;
}

/**
 * A role as an item to compare: as stored if both sides have one form, else as values. Scales of blocks are too many to hold
 * in memory, so such weights are always compared as values.
 */
export function comparedItem(role: Role, a: ModelWithScales, b: ModelWithScales): ComparedItem {
  const [from, to] = [storedRole(a, role), storedRole(b, role)];
  const isStored = isSameForm(from, to) && from.scaled?.extent !== "block";
  const compared = isStored ? comparedRole : comparedValues;
  return {
    key: role.key,
    role,
    shape: role.shape,
    leaf: true,
    isRecast: !isSameForm(from, to),
    a: compared(role, a),
    b: compared(role, b),
  };
}

export interface RoleDifference {
  /** the role; for a scale that no role reads, the role nearest to it; null: none */
  readonly role: Role | null;
  /** key of the role, or name of the scale */
  readonly key: string;
  /** stored tensors of both sides that hold the item */
  readonly tensors: readonly string[];
  readonly message: string;
}

/** The difference that was found for one compared role or scale, with its message. */
export function roleDifference({ key, role, a: from, b: to }: ComparedItem, message: string): RoleDifference {
  return { role, key, tensors: [...new Set([from.tensor, to.tensor])], message };
}
