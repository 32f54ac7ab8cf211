/** Modules that engines join into one module: q, k and v of an attention layer, and the experts of a layer. */

import type { QuantizedModel } from "../plugins/quantization-dialect.ts";

/** The projection of a routed expert; the group is the module that holds all experts. */
const EXPERT = /^(.*\.experts)\.\d+\.\w+\.weight$/;

/** All experts of a layer as one tensor. */
const STACK = /\.block_sparse_moe\.(input|output)_linear\.weight$/;

/** Warnings about joined modules of which only a part is cast, and about experts. */
export function joinedWarnings({
  cast,
  kept,
  scales,
}: Pick<QuantizedModel, "cast" | "kept" | "scales">): readonly string[] {
  const groupOf = (name: string) => /^(.*)\.[qkv]_proj\.weight$/.exec(name)?.[1] ?? EXPERT.exec(name)?.[1];
  const keptGroups = new Set(kept.map(groupOf));
  const groups = [...new Set(cast.map(groupOf))].flatMap((group) =>
    group !== undefined && keptGroups.has(group) ? [group] : [],
  );
  return [
    ...groups.map(
      (group) => `${group}: some of it is FP8 and some is not; vLLM fuses these and will refuse to load them`,
    ),
    ...(cast.some((name) => EXPERT.test(name))
      ? ["routed experts are FP8: vLLM reads them, Transformers 5 takes their codes without the scales"]
      : []),
    ...(scales === "tensor" && cast.some((name) => STACK.test(name))
      ? [
          "all experts of a layer are one tensor and have one scale: vLLM reads a scale for each row of each expert there; use `quantScales` row",
        ]
      : []),
  ];
}
