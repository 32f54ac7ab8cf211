/**
 * Which experts a token gets: the `topK` of the highest scores, ascending, as whole numbers. With several groups only
 * the `topGroups` best are eligible, a group being worth the sum (in F32) of its two highest scores; the others are
 * passed over, whatever their scores.
 *
 * Of equal scores, and of equal groups, the earlier wins: torch.topk leaves it open. NaN is above every number, as there.
 */
import type { Kernel } from "../kernel.ts";
import { routerChooseWgsl } from "../wgsl/router.ts";

export interface RouterChooseParams {
  readonly tokens: number;
  readonly experts: number;
  /** at most the experts of `topGroups` groups */
  readonly topK: number;
  /** equal runs of at least two experts, or one group */
  readonly groups: number;
  readonly topGroups: number;
}

export const routerChoose: Kernel<RouterChooseParams> = {
  id: "router-choose",
  inputs: ({ tokens, experts }) => [
    { name: "scores", length: tokens * experts, dtype: "F32", hard: "ties" }, // [T, experts]
  ],
  output: ({ tokens, topK }) => ({ name: "chosen", length: tokens * topK, dtype: "F32" }), // [T, topK]
  cases: [
    { tokens: 1, experts: 1, topK: 1, groups: 1, topGroups: 1 },
    { tokens: 9, experts: 8, topK: 3, groups: 2, topGroups: 1 },
    { tokens: 5, experts: 12, topK: 4, groups: 1, topGroups: 1 },
    { tokens: 11, experts: 24, topK: 7, groups: 6, topGroups: 3 },
    { tokens: 6, experts: 9, topK: 9, groups: 3, topGroups: 3 },
    { tokens: 3, experts: 512, topK: 22, groups: 1, topGroups: 1 },
  ],
  bound: () => 0, // nothing is rounded but the sum of two, and that alike
  oracle({ experts, topK, groups, topGroups }, [scores], chosen) {
    const size = experts / groups;
    const best = (values: readonly number[], count: number) =>
      [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b).slice(0, count);
    for (let t = 0; t * topK < chosen.length; t++) {
      const row = [...scores!.subarray(t * experts, (t + 1) * experts)];
      const worth = Array.from({ length: groups }, (_, g) => {
        const [first = -Infinity, second = -Infinity] = row
          .slice(g * size, (g + 1) * size)
          .sort((a, b) => b - a);
        return Math.fround(first + second);
      });
      const kept = new Set(best(worth, topGroups));
      const eligible = row.map((score, e) => (kept.has(Math.floor(e / size)) ? score : -Infinity));
      chosen.set(
        best(eligible, topK).sort((a, b) => a - b),
        t * topK,
      );
    }
  },
  wasm: {
    fn: "routerChoose",
    scalars: ({ experts, topK, groups, topGroups }) => [experts, topK, groups, topGroups],
    items: ({ tokens }) => tokens,
    work: ({ tokens, experts, topK }) => tokens * experts * (topK + 1),
    scratch: ({ groups }) => 8 * groups, // a score and a flag a group
  },
  wgsl: routerChooseWgsl,
  pace: {
    p: { tokens: 64, experts: 128, topK: 6, groups: 1, topGroups: 1 },
    work: 4 * 64 * (128 + 6),
    unit: "GB/s",
  },
};
