/** Faults of the scales of an FP8 KV cache. */
import { isCacheScale } from "../../checkpoint/scales/names.ts";
import { countOf } from "../../core/dtype.ts";
import type { EngineId } from "../engines/engine.ts";
import type { QuantizedFolder } from "../engines/folder.ts";
import { fault, type UnjudgedFault } from "./fault.ts";

/**
 * @param isDeclared whether one of the folder's files declares an FP8 KV cache
 * @param engines    those that read the declaration
 */
export function cacheFaults(
  { scales, tensors }: QuantizedFolder,
  isDeclared: boolean,
  engines: readonly EngineId[],
): readonly UnjudgedFault[] {
  const stored = scales.unusedScales.filter(isCacheScale).map((name) => tensors.get(name)!);
  const vectors = stored
    .filter(({ shape }) => countOf(shape) !== 1)
    .map(({ name, shape }) => {
      const message = `[${shape.join(", ")}] scales of a KV cache: engines read one number (https://github.com/sgl-project/sglang/pull/40243)`;
      return fault("kv-scale-shape", "error", message, { tensor: name });
    });
  if (isDeclared && stored.length === 0) {
    const message =
      "an FP8 KV cache is declared, and no scale of it is stored: engines take 1.0 (https://github.com/vllm-project/vllm/issues/6738)";
    return [fault("kv-scale-missing", "note", message, { engines, loads: true })];
  }
  if (isDeclared || stored.length === 0) return vectors;
  const message = `${stored.length} scales of a KV cache are stored, and no file declares an FP8 KV cache: engines do not use them by themselves (https://github.com/NVIDIA/NemoClaw/issues/7899)`;
  const tensor = stored[0]!.name;
  return [...vectors, fault("kv-scale-undeclared", "note", message, { tensor, engines, loads: true })];
}
