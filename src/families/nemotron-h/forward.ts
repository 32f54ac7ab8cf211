/**
 * Nemotron-H run natively: a block per layer kind, and for each dialect which stored rows feed which stream.
 * Written by hand and apart from the rules of its neighbours: a swapped z and x there must show here.
 */

import { add } from "../../../kernels/add.ts";
import { attention } from "../../../kernels/attention.ts";
import { conv1d } from "../../../kernels/conv1d.ts";
import type { Kernel } from "../../../kernels/define.ts";
import { gatedNorm } from "../../../kernels/gated-norm.ts";
import { relu2 } from "../../../kernels/relu2.ts";
import { rmsNorm } from "../../../kernels/rms-norm.ts";
import { routerChoose } from "../../../kernels/router-choose.ts";
import { routerScore } from "../../../kernels/router-score.ts";
import { routerWeigh } from "../../../kernels/router-weigh.ts";
import { ssd } from "../../../kernels/ssd.ts";
import type { Dims, Feed, Forward, KernelStage, LayerKind, Native, Stage, Use } from "../define.ts";

function step<P>(
  kernel: Kernel<P>,
  to: string,
  from: readonly string[],
  parameters: readonly string[],
  p: (d: Dims, rows: number) => P,
): KernelStage {
  return {
    op: "kernel",
    from,
    parameters,
    to,
    run: (backend, d, rows, inputs, output) => backend.run(kernel, p(d, rows), inputs, output),
  };
}

const linear = (from: string, ...to: readonly string[]): Stage => ({ op: "linear", from, to });

const norm = (to: string, gain: string, from = "residual"): Stage =>
  step(rmsNorm, to, [from], [gain], (d, tokens) => ({ tokens, width: d.hidden!, eps: d.eps! }));

const squaredRelu = (to: string, from: string, width: (d: Dims) => number): Stage =>
  step(relu2, to, [from], [], (d, rows) => ({ count: rows * width(d) }));

/** Causal depthwise convolution over time and SiLU, of one of the streams x, B, C. */
const conv = (stream: "x" | "B" | "C", width: (d: Dims) => number): Stage =>
  step(conv1d, `conv.${stream}`, [stream], [`taps.${stream}`, `bias.${stream}`], (d, tokens) => ({
    tokens,
    width: width(d),
    kernel: d.taps!,
  }));

/** Experts may be narrower than the stream: a projection leads to them, and another back. */
const isLatent = (d: Dims) => d.latent! > 0;

const moe = (d: Dims): readonly Stage[] => [
  norm("u", "gain"),
  linear("u", "route", ...(isLatent(d) ? ["latent"] : [])), // [T, experts], [T, latent]
  step(routerScore, "scores", ["route"], ["correction"], ({ experts }, tokens) => ({
    tokens,
    experts: experts!,
  })),
  {
    ...step(routerChoose, "chosen", ["scores"], [], (d, tokens) => ({
      tokens,
      experts: d.experts!,
      topK: d.topK!,
      groups: d.routeGroups!,
      topGroups: d.routeTopGroups!,
    })), // [T, topK]
    choice: (d) => ({ experts: d.experts!, perToken: d.topK! }),
  },
  step(routerWeigh, "weights", ["route", "chosen"], [], (d, tokens) => ({
    tokens,
    experts: d.experts!,
    topK: d.topK!,
    normalise: d.routeNormalise === 1,
    scale: d.routeScale!,
  })), // [T, topK]
  { op: "deal", from: isLatent(d) ? "latent" : "u", to: "dealt" }, // [rows, moeWidth]
  { op: "experts", from: "dealt", to: "expert.up" }, // [rows, moeFfn]
  squaredRelu("expert.act", "expert.up", (d) => d.moeFfn!),
  { op: "experts", from: "expert.act", to: "expert.down" }, // [rows, moeWidth]
  { op: "collect", from: "expert.down", weights: "weights", to: isLatent(d) ? "narrow" : "routed" }, // [T, moeWidth]
  ...(isLatent(d) ? [linear("narrow", "routed")] : []), // [T, hidden]
  linear("u", "shared.up"), // [T, moeShared]
  squaredRelu("shared.act", "shared.up", (d) => d.moeShared!),
  linear("shared.act", "shared"), // [T, hidden]
  step(add, "out", ["routed", "shared"], [], (d, tokens) => ({ count: tokens * d.hidden! })),
];

const BLOCKS: Readonly<Record<Exclude<LayerKind, "moe">, readonly Stage[]>> = {
  mamba: [
    norm("u", "gain"), // [T, hidden]
    linear("u", "z", "x", "B", "C", "dt"), // [T, inner] twice, [T, groups * state] twice, [T, heads]
    conv("x", (d) => d.inner!),
    conv("B", (d) => d.groupState!),
    conv("C", (d) => d.groupState!),
    step(ssd, "y", ["conv.x", "conv.B", "conv.C", "dt"], ["A_log", "D", "dt_bias"], (d, tokens) => ({
      tokens,
      heads: d.mambaHeads!,
      headDim: d.mambaHeadDim!,
      groups: d.groups!,
      state: d.state!,
      dtMin: d.dtMin!,
      dtMax: d.dtMax!,
    })), // [T, inner]
    step(gatedNorm, "g", ["y", "z"], ["gate.gain"], (d, tokens) => ({
      tokens,
      width: d.inner!,
      groups: d.groups!,
      eps: d.eps!,
    })), // [T, inner]
    linear("g", "out"), // [T, hidden]
  ],
  attention: [
    norm("u", "gain"),
    linear("u", "q", "k", "v"), // [T, heads * headDim], [T, kvHeads * headDim] twice
    step(attention, "a", ["q", "k", "v"], [], (d, tokens) => ({
      tokens,
      heads: d.heads!,
      kvHeads: d.kvHeads!,
      dim: d.headDim!,
    })), // [T, heads * headDim]
    linear("a", "out"),
  ],
  mlp: [
    norm("u", "gain"),
    linear("u", "up"), // [T, ffn]
    squaredRelu("act", "up", (d) => d.ffn!),
    linear("act", "out"),
  ],
};

/** Rows [from, from + count) to the whole of a stream or parameter. */
const rows = (to: string, from: number, count: number): Feed => ({ to, at: 0, from, count });

const whole = (name: string, to: string, count: (d: Dims) => number): Use => ({
  name,
  feeds: (d) => [rows(to, 0, count(d))],
});

const hf: Native = {
  dialect: "hf",
  embedding: ["backbone.embeddings.weight", "backbone.embedding.weight"],
  prefix: { main: "backbone.layers.{layer}.", mtp: "mtp.layers.{layer}.", step: "mtp.layers.{layer}." },
  uses: {
    mamba: [
      whole("norm.weight", "gain", (d) => d.hidden!),
      {
        // one fused projection, rows in the order z, x, B, C, dt
        name: "mixer.in_proj.weight",
        feeds: (d) => [
          rows("z", 0, d.inner!),
          rows("x", d.inner!, d.inner!),
          rows("B", 2 * d.inner!, d.groupState!),
          rows("C", 2 * d.inner! + d.groupState!, d.groupState!),
          rows("dt", 2 * d.inner! + 2 * d.groupState!, d.mambaHeads!),
        ],
      },
      { name: "mixer.conv1d.weight", feeds: (d) => channels("taps", d) },
      { name: "mixer.conv1d.bias", feeds: (d) => channels("bias", d) },
      whole("mixer.A_log", "A_log", (d) => d.mambaHeads!),
      whole("mixer.D", "D", (d) => d.mambaHeads!),
      whole("mixer.dt_bias", "dt_bias", (d) => d.mambaHeads!),
      whole("mixer.norm.weight", "gate.gain", (d) => d.inner!),
      whole("mixer.out_proj.weight", "out", (d) => d.hidden!),
    ],
    attention: [
      whole("norm.weight", "gain", (d) => d.hidden!),
      whole("mixer.q_proj.weight", "q", (d) => d.q!),
      whole("mixer.k_proj.weight", "k", (d) => d.kv!),
      whole("mixer.v_proj.weight", "v", (d) => d.kv!),
      whole("mixer.o_proj.weight", "out", (d) => d.hidden!),
    ],
    mlp: [
      whole("norm.weight", "gain", (d) => d.hidden!),
      whole("mixer.up_proj.weight", "up", (d) => d.ffn!),
      whole("mixer.down_proj.weight", "out", (d) => d.hidden!),
    ],
    moe: [
      whole("norm.weight", "gain", (d) => d.hidden!),
      whole("mixer.gate.weight", "route", (d) => d.experts!),
      whole("mixer.gate.e_score_correction_bias", "correction", (d) => d.experts!),
      whole("mixer.fc1_latent_proj.weight", "latent", (d) => d.latent!),
      whole("mixer.experts.{expert}.up_proj.weight", "expert.up", (d) => d.moeFfn!),
      whole("mixer.experts.{expert}.down_proj.weight", "expert.down", (d) => d.moeWidth!),
      whole("mixer.fc2_latent_proj.weight", "routed", (d) => d.hidden!),
      whole("mixer.shared_experts.up_proj.weight", "shared.up", (d) => d.moeShared!),
      whole("mixer.shared_experts.down_proj.weight", "shared", (d) => d.hidden!),
    ],
    join: [
      whole("enorm.weight", "words.gain", (d) => d.hidden!),
      whole("hnorm.weight", "gain", (d) => d.hidden!),
      whole("eh_proj.weight", "out", (d) => d.hidden!),
    ],
    end: [whole("final_layernorm.weight", "gain", (d) => d.hidden!)],
    head: [
      whole("backbone.norm_f.weight", "gain", (d) => d.hidden!),
      whole("lm_head.weight", "logits", (d) => d.vocab!),
    ],
  },
};

/** The convolution's channels, in the order x, B, C. */
function channels(parameter: string, d: Dims): readonly Feed[] {
  return [
    rows(`${parameter}.x`, 0, d.inner!),
    rows(`${parameter}.B`, d.inner!, d.groupState!),
    rows(`${parameter}.C`, d.inner! + d.groupState!, d.groupState!),
  ];
}

export const forward: Forward = {
  streams: (d) => ({
    residual: d.hidden!,
    u: d.hidden!,
    out: d.hidden!,
    z: d.inner!,
    x: d.inner!,
    B: d.groupState!,
    C: d.groupState!,
    dt: d.mambaHeads!,
    "conv.x": d.inner!,
    "conv.B": d.groupState!,
    "conv.C": d.groupState!,
    y: d.inner!,
    g: d.inner!,
    q: d.q!,
    k: d.kv!,
    v: d.kv!,
    a: d.q!,
    up: d.ffn!,
    act: d.ffn!,
    route: d.experts!,
    scores: d.experts!,
    chosen: d.topK!,
    weights: d.topK!,
    latent: d.latent!,
    dealt: d.moeWidth!,
    "expert.up": d.moeFfn!,
    "expert.act": d.moeFfn!,
    "expert.down": d.moeWidth!,
    narrow: d.latent!,
    routed: d.hidden!,
    "shared.up": d.moeShared!,
    "shared.act": d.moeShared!,
    shared: d.hidden!,
    words: d.hidden!,
    "words.u": d.hidden!,
    joined: 2 * d.hidden!,
    logits: d.vocab!,
  }),
  blocks: (d) => {
    const head = { of: "head", count: d.mambaHeadDim! };
    const group = { of: "group", count: d.state! };
    const one = { of: "head", count: 1 }; // one number a head
    const query = { of: "head", count: d.headDim! };
    return {
      ...{ z: head, x: head, y: head, g: head, "conv.x": head, "taps.x": head, "bias.x": head },
      ...{ B: group, "conv.B": group, "taps.B": group, "bias.B": group },
      ...{ C: group, "conv.C": group, "taps.C": group, "bias.C": group },
      ...{ dt: one, A_log: one, D: one, dt_bias: one, "gate.gain": head },
      ...{ q: query, k: query, v: query, a: query },
    };
  },
  dealt: ["dealt", "expert.up", "expert.act", "expert.down"],
  block: (kind, d) => (kind === "moe" ? moe(d) : BLOCKS[kind]),
  head: [norm("u", "gain"), linear("u", "logits")],
  step: {
    join: [
      norm("words.u", "words.gain", "words"),
      norm("u", "gain"),
      { op: "join", from: ["words.u", "u"], to: "joined" }, // [T, 2 hidden]
      linear("joined", "out"),
    ],
    end: [norm("u", "gain")],
  },
  natives: [hf],
};
