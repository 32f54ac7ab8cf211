/** What layers keep between tokens: the KV cache of attention, and the state of convolutions and scans. */
import type { Stage } from "./forward.ts";
import type { Dims } from "./structure.ts";

/**
 * Numbers that layers keep for one sequence.
 *
 * @param blocks stages of each layer
 * @param widths elements per row of each stream
 * @returns elements for each token, and elements that do not depend on the number of tokens
 */
export function carriedElements(
  blocks: readonly (readonly Stage[])[],
  widths: Readonly<Record<string, number>>,
  d: Dims,
): { readonly perToken: number; readonly fixed: number } {
  let [perToken, fixed] = [0, 0];
  for (const stage of blocks.flat()) {
    if (stage.op !== "kernel" || stage.carry === undefined) continue;
    const { carry } = stage;
    if (carry.keeps === "state") fixed += carry.elements(d);
    else {
      const row = carry.of.reduce((sum, name) => sum + widths[name]!, 0);
      if (carry.most === undefined) perToken += row;
      else fixed += carry.most(d) * row;
    }
  }
  return { perToken, fixed };
}
