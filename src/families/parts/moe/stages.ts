/** Stages of a layer of gated experts with a softmax router: the sum over the chosen of weight * down(silu(gate(u)) * up(u)). */
import type { Stage } from "../../forward.ts";
import { swiglu } from "../mlp/stages.ts";
import { kernelStage, linear, norm } from "../stages.ts";
import type { MoeDims } from "./dims.ts";

/** @param to the stream of the sum */
export const moeStages = <D extends MoeDims>(to = "out"): readonly Stage<D>[] => [
  norm("u", "gain"), // [T, hidden]
  linear("u", "route"), // [T, experts]
  {
    // the softmax has the order of its logits
    ...kernelStage("routerChoose", "chosen", ["route"], [], ({ experts, topK }: D, tokens) => ({
      ...{ tokens, experts, topK, groups: 1, topGroups: 1 },
    })), // [T, topK]
    choice: ({ experts, topK }) => ({ experts, perToken: topK, rounding: 0 }),
  },
  kernelStage("routerSoftmax", "weights", ["route", "chosen"], [], (d: D, tokens) => ({
    tokens,
    experts: d.experts,
    topK: d.topK,
    over: d.routeNormalise === 1 ? ("chosen" as const) : ("all" as const),
  })), // [T, topK]
  { op: "dispatch", from: "u", to: "dealt" }, // [rows, hidden]
  { op: "experts", from: "dealt", to: "expert.gate" }, // [rows, moeFfn]
  { op: "experts", from: "dealt", to: "expert.up" }, // [rows, moeFfn]
  swiglu("expert.act", "expert.gate", "expert.up", (d: D) => d.moeFfn),
  { op: "experts", from: "expert.act", to: "expert.down" }, // [rows, hidden]
  { op: "combine", from: "expert.down", weights: "weights", to }, // [T, hidden]
];

/** Streams with a row for each expert that a token chose. */
export const MOE_DISPATCHED = ["dealt", "expert.gate", "expert.up", "expert.act", "expert.down"] as const;

/** Elements in one row of each stream. */
export const moeStreams = (d: MoeDims): Readonly<Record<string, number>> => ({
  ...{ route: d.experts, chosen: d.topK, weights: d.topK, dealt: d.hidden },
  ...{ "expert.gate": d.moeFfn, "expert.up": d.moeFfn, "expert.act": d.moeFfn, "expert.down": d.hidden },
});
