/** Modules that engines join into one module: q, k and v of an attention layer, gate and up of an MLP, the experts of a layer. */

import type { QuantizedModel } from "../plugins/quantization-dialect.ts";

/** Names of modules that are joined; the group is the module that holds them. */
const JOINED = [
  [/^(.*\.experts)\.\d+\.\w+$/, "the experts of a layer"],
  [/^(.*)\.[qkv]_proj$/, "q, k and v"],
  [/^(.*)\.(?:gate|up)_proj$/, "gate and up"],
] as const;

/** The module that holds those that vLLM joins with this one, and what they are; undefined: it stays a module of its own. */
export function joinedIn(module: string): { readonly name: string; readonly parts: string } | undefined {
  for (const [pattern, parts] of JOINED) {
    const name = pattern.exec(module)?.[1];
    if (name !== undefined) return { name, parts };
  }
  return undefined;
}

/** The projection of a routed expert. */
const EXPERT = /\.experts\.\d+\.\w+\.weight$/;

/** Module with all experts of a layer in one tensor. */
export const EXPERT_STACK = /\.block_sparse_moe\.(input|output)_linear$/;

/** Warnings about joined modules of which only a part is cast, and about experts. */
export function joinedWarnings({
  cast,
  kept,
  scales,
}: Pick<QuantizedModel, "cast" | "kept" | "scales">): readonly string[] {
  const groupOf = (name: string) => joinedIn(name.replace(/\.weight$/, ""))?.name;
  const keptGroups = new Set(kept.map(groupOf));
  const groups = [...new Set(cast.map(groupOf))].flatMap((group) =>
    group !== undefined && keptGroups.has(group) ? [group] : [],
  );
  const stacks = cast.filter((name) => EXPERT_STACK.test(name.replace(/\.weight$/, "")));
  const hasOneScale = scales === "tensor" && stacks.length > 0;
  return [
    ...groups.map(
      (group) => `${group}: some of it is FP8 and some is not; vLLM fuses these and will refuse to load them`,
    ),
    ...(cast.some((name) => EXPERT.test(name)) || (stacks.length > 0 && !hasOneScale)
      ? ["routed experts are FP8: vLLM reads them, Transformers 5 takes their codes without the scales"]
      : []),
    ...(hasOneScale
      ? [
          "all experts of a layer are one tensor and have one scale: vLLM cannot read it there, and reads scales of rows (`quantScales` row)",
        ]
      : []),
  ];
}
