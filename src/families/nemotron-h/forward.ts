/**
 * Nemotron-H run natively: a block per layer kind, and for each dialect which stored rows feed which stream.
 * Written by hand and apart from the rules of its neighbours: a swapped z and x there must show here.
 */
import { attention } from "../../../kernels/attention.ts";
import { conv1d } from "../../../kernels/conv1d.ts";
import type { Kernel } from "../../../kernels/define.ts";
import { gatedNorm } from "../../../kernels/gated-norm.ts";
import { relu2 } from "../../../kernels/relu2.ts";
import { rmsNorm } from "../../../kernels/rms-norm.ts";
import { ssd } from "../../../kernels/ssd.ts";
import { IsologitError } from "../../core/errors.ts";
import type { Dims, Feed, Forward, LayerKind, Native, Stage, Use } from "../define.ts";

function step<P>(
  kernel: Kernel<P>,
  to: string,
  from: readonly string[],
  parameters: readonly string[],
  p: (d: Dims, tokens: number) => P,
): Stage {
  return {
    op: "kernel",
    from,
    parameters,
    to,
    run: (backend, d, tokens, inputs, output) => backend.run(kernel, p(d, tokens), inputs, output),
  };
}

const linear = (from: string, ...to: readonly string[]): Stage => ({ op: "linear", from, to });

const norm = (to: string, gain: string): Stage =>
  step(rmsNorm, to, ["residual"], [gain], (d, tokens) => ({ tokens, width: d.hidden!, eps: d.eps! }));

/** Causal depthwise convolution over time and SiLU, of one of the streams x, B, C. */
const conv = (stream: "x" | "B" | "C", width: (d: Dims) => number): Stage =>
  step(conv1d, `conv.${stream}`, [stream], [`taps.${stream}`, `bias.${stream}`], (d, tokens) => ({
    tokens,
    width: width(d),
    kernel: d.taps!,
  }));

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
    step(relu2, "act", ["up"], [], (d, tokens) => ({ count: tokens * d.ffn! })),
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
  prefix: "backbone.layers.{layer}.",
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
    moe: [],
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
  block(kind) {
    if (kind === "moe") {
      throw new IsologitError(
        "UNSUPPORTED",
        "the forward pass of mixture-of-experts layers (E) is not in this version",
      );
    }
    return BLOCKS[kind];
  },
  head: [norm("u", "gain"), linear("u", "logits")],
  natives: [hf],
};
