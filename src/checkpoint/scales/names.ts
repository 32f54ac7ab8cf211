/** Names of scale tensors. */
import type { Shape } from "../../core/dtype.ts";

/** Name of the scale tensor that we write for a weight: F32 of SCALE_SHAPE. */
export function scaleName(weight: string): string {
  return `${weight}_scale`;
}

/** Shape of one scale for a tensor, as compressed-tensors writes it; vLLM loads [] too. */
export const SCALE_SHAPE: Shape = [1];

/** `a.b` of `a.b.weight` and `a.b.input_scale`. */
export function moduleOf(name: string): string {
  return name.slice(0, name.lastIndexOf("."));
}
