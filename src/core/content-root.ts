/** The content root: one hash of a model, whatever its format. */
import { createHash } from "node:crypto";
import type { DType, Shape } from "./dtype.ts";
import { bitsOfF32 } from "./float.ts";
import { canonicalJson } from "./hash.ts";

/** One role of a model, by its content. */
export interface Leaf {
  /** layer, role and expert: "main.3.ssm.in" */
  readonly key: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** SHA-256 of the elements in role order, hex */
  readonly sha256: string;
  /** its scales' values, f32, one or one a row, where stored numbers are not the real ones */
  readonly scale: readonly number[] | Float32Array | null;
}

/**
 * The content root: SHA-256 over the settings of the forward pass and a sorted leaf a role, hex. Padding,
 * sharding, fusing, names and the spelling of a scale do not enter; codes and dtypes do.
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
