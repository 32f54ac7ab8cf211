/** The content root: one hash of a model that does not depend on its format. */
import { createHash } from "node:crypto";
import type { DType, Shape } from "./dtype.ts";
import { bitsOfF32 } from "./float.ts";
import { canonicalJson } from "./hash.ts";

/** The content of one role. */
export interface Leaf {
  /** layer, role and expert: "main.3.ssm.in" */
  readonly key: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** SHA-256 of the elements in role order, hex */
  readonly sha256: string;
  /** scales from stored to real values, f32: one, or one for each row; null if the stored values are the real ones */
  readonly scale: readonly number[] | Float32Array | null;
}

/**
 * SHA-256, in hex, over the settings of the forward pass and one leaf for each role, sorted by key. It depends on the
 * stored bits and dtypes. It does not depend on padding, sharding, fusing, names, or how a scale is stored.
 */
export function contentRoot(settings: Readonly<Record<string, unknown>>, leaves: readonly Leaf[]): string {
  const hash = createHash("sha256").update(`${canonicalJson(settings)}\n`);
  for (const { key, dtype, shape, sha256: digest, scale } of [...leaves].sort((a, b) =>
    a.key < b.key ? -1 : 1,
  )) {
    hash.update(`${canonicalJson([key, dtype, shape, digest, scale && Array.from(scale, bitsOfF32)])}\n`);
  }
  return hash.digest("hex");
}
