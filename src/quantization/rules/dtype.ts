/** The type of unquantised weights, and the type that the config names. */
import type { Checkpoint } from "../../core/checkpoint.ts";
import { countOf, isFloat, isFp8, RECASTS } from "../../core/dtype.ts";
import { generalFault, type QuantizationFault } from "./fault.ts";

/** Compares the type in the config, in which engines compute, with that of most weights that are not FP8. */
export function dtypeFaults({
  config,
  tensors,
}: Pick<Checkpoint, "config" | "tensors">): readonly QuantizationFault[] {
  const configured = config.dtype ?? config.torch_dtype;
  if (typeof configured !== "string") return [];
  const elements = new Map<string, number>();
  for (const { dtype, shape } of tensors) {
    if (isFloat(dtype) && !isFp8(dtype)) elements.set(dtype, (elements.get(dtype) ?? 0) + countOf(shape));
  }
  const [most] = [...elements].sort(([, a], [, b]) => b - a);
  const name = configured.replace(/^torch\./, "");
  const named = Object.values(RECASTS).find(({ torch }) => torch === name);
  if (most === undefined || named?.dtype === most[0]) return [];
  const message = `it says ${configured}, and most weights are ${most[0]}: engines compute in another type`;
  return [generalFault("dtype-contradiction", "warning", message)];
}
