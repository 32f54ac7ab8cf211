/**
 * The forward pass of Nemotron-H: the stages of each layer kind. `hf/native.ts` and `megatron/native.ts` say which stored
 * rows produce which stream.
 */
import { routerScoreDefinition } from "../../../kernels/definitions/moe.ts";
import type { SsdParams } from "../../../kernels/definitions/ssd.ts";
import { stateLength } from "../../../kernels/definitions/ssd-step.ts";
import type { Forward, Stage } from "../forward.ts";
import {
  isZero,
  kernelStage,
  linear,
  norm,
  runKernel,
  squaredRelu,
  stageWithHistory,
} from "../parts/stages.ts";
import type { NemotronHDims } from "./dims.ts";
import { hf } from "./hf/native.ts";
import { megatron, megatronRanks } from "./megatron/native.ts";
import type { NemotronHLayerKind } from "./settings.ts";

/** Causal depthwise convolution over time, then SiLU, of one of the streams x, B, C. */
const conv = (stream: "x" | "B" | "C", width: (d: NemotronHDims) => number): Stage<NemotronHDims> => ({
  ...stageWithHistory(
    "conv1d",
    `conv.${stream}`,
    [stream],
    [`taps.${stream}`, `bias.${stream}`],
    { of: [stream], most: (d) => d.taps - 1 },
    (d, tokens, past) => ({ tokens, past, width: width(d), kernel: d.taps }),
  ),
  needs: { [`taps.${stream}`]: [stream] },
});

const scanOf = (d: NemotronHDims, tokens: number): SsdParams => ({
  tokens,
  heads: d.mambaHeads,
  headDim: d.mambaHeadDim,
  groups: d.groups,
  state: d.state,
  dtMin: d.dtMin,
  dtMax: d.dtMax,
});

const scan: Stage<NemotronHDims> = {
  ...kernelStage("ssd", "y", ["conv.x", "conv.B", "conv.C", "dt"], ["A_log", "D", "dt_bias"], scanOf), // [T, inner]
  needs: {
    A_log: ["conv.x", "conv.B", "conv.C"],
    D: ["conv.x"],
    dt_bias: ["conv.x", "conv.B", "conv.C"],
  },
  carry: {
    keeps: "state",
    elements: (d) => stateLength(scanOf(d, 0)),
    run: (backend, d, rows, inputs, output) => runKernel("ssdStep", backend, scanOf(d, rows), inputs, output),
  },
};

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

const BLOCKS: Readonly<Record<Exclude<NemotronHLayerKind, "moe">, readonly Stage[]>> = {
  mamba: [
    norm("u", "gain"), // [T, hidden]
    linear("u", "z", "x", "B", "C", "dt"), // [T, inner] twice, [T, groups * state] twice, [T, heads]
    conv("x", (d) => d.inner),
    conv("B", (d) => d.groupState),
    conv("C", (d) => d.groupState),
    scan,
    {
      ...kernelStage("gatedNorm", "g", ["y", "z"], ["gate.gain"], (d: NemotronHDims, tokens) => ({
        tokens,
        width: d.inner,
        groups: d.groups,
        eps: d.mixerEps,
        normFirst: false,
      })), // [T, inner]
      needs: { "gate.gain": ["y", "z"] },
    },
    linear("g", "out"), // [T, hidden]
  ],
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
    z: d.inner,
    x: d.inner,
    B: d.groupState,
    C: d.groupState,
    dt: d.mambaHeads,
    "conv.x": d.inner,
    "conv.B": d.groupState,
    "conv.C": d.groupState,
    y: d.inner,
    g: d.inner,
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
    const head = { of: "head", count: d.mambaHeadDim };
    const group = { of: "group", count: d.state };
    const number = { of: "head", count: 1 }; // one number for each head
    const query = { of: "head", count: d.headDim };
    return {
      ...{ z: head, x: head, y: head, g: head, "conv.x": head, "taps.x": head, "bias.x": head },
      ...{ B: group, "conv.B": group, "taps.B": group, "bias.B": group },
      ...{ C: group, "conv.C": group, "taps.C": group, "bias.C": group },
      ...{ dt: number, A_log: number, D: number, dt_bias: number, "gate.gain": head },
      ...{ q: query, k: query, v: query, a: query },
    };
  },
  dispatched: ["dealt", "expert.up", "expert.act", "expert.down"],
  // A layer of this family has no other kind: `layers` made it.
  block: (kind: string, d) => (kind === "moe" ? moe(d) : BLOCKS[kind as keyof typeof BLOCKS]),
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
  natives: [hf, megatron, megatronRanks],
};
