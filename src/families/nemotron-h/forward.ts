/**
 * The forward pass of Nemotron-H: the stages of each layer kind. `hf/native.ts` and `megatron/native.ts` say which stored
 * rows produce which stream.
 */
import { routerScoreDefinition } from "../../../kernels/definitions/moe.ts";
import type { Forward, Stage } from "../forward.ts";
import { mambaBlocks, mambaStages, mambaStreams } from "../parts/mamba/stages.ts";
import { isZero, kernelStage, linear, norm, squaredRelu, stageWithHistory } from "../parts/stages.ts";
import type { NemotronHDims } from "./dims.ts";
import { gguf } from "./gguf/native.ts";
import { hf } from "./hf/native.ts";
import { masks } from "./masks.ts";
import { megatron, megatronRanks } from "./megatron/native.ts";
import type { NemotronHLayerKind } from "./settings.ts";

/** Whether the routed experts are narrower than the stream, with a projection before them and one after them. */
const isLatent = (d: NemotronHDims) => d.latent > 0;

const moe = (d: NemotronHDims): readonly Stage<NemotronHDims>[] => [
  norm("u", "gain"),
  linear("u", "route", ...(isLatent(d) ? ["latent"] : [])), // [T, experts], [T, latent]
  kernelStage("routerScore", "scores", ["route"], ["correction"], ({ experts }, tokens) => ({
    tokens,
    experts: experts!,
  })),
  {
    ...kernelStage("routerChoose", "chosen", ["scores"], [], (d, tokens) => ({
      tokens,
      experts: d.experts,
      topK: d.topK,
      groups: d.routeGroups,
      topGroups: d.routeTopGroups,
    })), // [T, topK]
    choice: (d) => ({
      experts: d.experts,
      perToken: d.topK,
      rounding: routerScoreDefinition.bound({ tokens: 1, experts: d.experts }),
    }),
  },
  kernelStage("routerWeigh", "weights", ["route", "chosen"], [], (d, tokens) => ({
    tokens,
    experts: d.experts,
    topK: d.topK,
    normalise: d.routeNormalise === 1,
    scale: d.routeScale,
  })), // [T, topK]
  { op: "dispatch", from: isLatent(d) ? "latent" : "u", to: "dealt" }, // [rows, moeWidth]
  { op: "experts", from: "dealt", to: "expert.up" }, // [rows, moeFfn]
  squaredRelu("expert.act", "expert.up", (d) => d.moeFfn),
  { op: "experts", from: "expert.act", to: "expert.down" }, // [rows, moeWidth]
  { op: "combine", from: "expert.down", weights: "weights", to: isLatent(d) ? "narrow" : "routed" }, // [T, moeWidth]
  ...(isLatent(d) ? [linear("narrow", "routed")] : []), // [T, hidden]
  linear("u", "shared.up"), // [T, moeShared]
  squaredRelu("shared.act", "shared.up", (d) => d.moeShared),
  linear("shared.act", "shared"), // [T, hidden]
  kernelStage("add", "out", ["routed", "shared"], [], (d, tokens) => ({ count: tokens * d.hidden })),
];

const BLOCKS: Readonly<Record<Exclude<NemotronHLayerKind, "moe" | "mamba">, readonly Stage[]>> = {
  attention: [
    norm("u", "gain"),
    linear("u", "q", "k", "v"), // [T, heads * headDim], [T, kvHeads * headDim] twice
    {
      ...stageWithHistory(
        "attention",
        "a",
        ["q", "k", "v"],
        [],
        { of: ["k", "v"] },
        (d: NemotronHDims, tokens, past) => ({
          tokens,
          past,
          heads: d.heads,
          kvHeads: d.kvHeads,
          dim: d.headDim,
          scale: 1 / Math.sqrt(d.headDim),
          window: 0,
        }),
      ), // [T, heads * headDim]
      silent: ([, , v]) => isZero(v!),
    },
    linear("a", "out"),
  ],
  mlp: [
    norm("u", "gain"),
    linear("u", "up"), // [T, ffn]
    squaredRelu("act", "up", (d: NemotronHDims) => d.ffn),
    linear("act", "out"),
  ],
};

export const forward: Forward<NemotronHDims> = {
  streams: (d) => ({
    residual: d.hidden,
    u: d.hidden,
    out: d.hidden,
    ...mambaStreams(d),
    q: d.q,
    k: d.kv,
    v: d.kv,
    a: d.q,
    up: d.ffn,
    act: d.ffn,
    route: d.experts,
    scores: d.experts,
    chosen: d.topK,
    weights: d.topK,
    latent: d.latent,
    dealt: d.moeWidth,
    "expert.up": d.moeFfn,
    "expert.act": d.moeFfn,
    "expert.down": d.moeWidth,
    narrow: d.latent,
    routed: d.hidden,
    "shared.up": d.moeShared,
    "shared.act": d.moeShared,
    shared: d.hidden,
    words: d.hidden,
    "words.u": d.hidden,
    joined: 2 * d.hidden,
    logits: d.vocab,
  }),
  experts: (d) => d.experts,
  blocks: (d) => {
    const query = { of: "head", count: d.headDim };
    return { ...mambaBlocks(d), q: query, k: query, v: query, a: query };
  },
  dispatched: ["dealt", "expert.up", "expert.act", "expert.down"],
  block(kind, d) {
    if (kind === "moe") return moe(d);
    if (kind === "mamba") return [norm("u", "gain"), ...mambaStages(d)];
    return BLOCKS[kind as keyof typeof BLOCKS]; // a layer of this family has no other kind: `layers` made it
  },
  head: [norm("u", "gain"), linear("u", "logits")],
  mtp: {
    start: [
      norm("words.u", "words.gain", "words"),
      norm("u", "gain"),
      { op: "concat", from: ["words.u", "u"], to: "joined" }, // [T, 2 hidden]
      linear("joined", "out"),
    ],
    end: [norm("u", "gain")],
  },
  natives: [hf, megatron, megatronRanks, gguf],
  masks,
};
