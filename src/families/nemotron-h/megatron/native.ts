/**
 * How Megatron's dialects run, rank by rank as in Megatron: queries, keys and values stay fused and their activations are
 * divided by group; the fused tensor of a rank produces its share of each stream; partial sums of row-parallel layers are
 * added over ranks. This table is written by hand and does not use `rules.ts`, because it checks the rules.
 */
import type { Native, OutputRows, TensorPosition, Use } from "../../forward.ts";
import type { NemotronHDims } from "../dims.ts";

type Size = (d: NemotronHDims) => number;

/** Column-parallel: the n rows of rank t are [t n, (t + 1) n) of the stream. Rows past its end are padding or copies of another rank's. */
function ownRows(
  to: string,
  size: number,
  { tp, shape }: Pick<TensorPosition, "tp" | "shape">,
): readonly OutputRows[] {
  const [count, at] = [shape[0]!, tp * shape[0]!];
  return at < size ? [{ to, at, from: 0, count: Math.min(count, size - at) }] : [];
}

const rows = (name: string, to: string, size: Size, also: readonly string[] = []): Use<NemotronHDims> => ({
  name,
  also,
  outputs: (d, at) => ownRows(to, size(d), at),
});

/** Row-parallel: the n columns of rank t multiply elements [t n, (t + 1) n) of the input stream and give a partial sum of all rows. */
const columns = (name: string, to: string, inputSize: Size): Use<NemotronHDims> => ({
  name,
  outputs: (d, { tp, shape }) => {
    const [count, width] = [shape[0]!, shape[1]!];
    return tp * width < inputSize(d) ? [{ to, at: 0, from: 0, count }] : [];
  },
  inputOffset: (_, { tp, shape }) => tp * shape[1]!,
});

/** The matrix of one expert, in as many parts as its shape shows. Ranks with higher numbers hold copies of the first parts. */
const expertUp = (name: string, also: readonly string[] = []): Use<NemotronHDims> => ({
  name,
  also,
  outputs: (d, { tp, shape }) => ownRows("expert.up", d.moeFfn, { tp: tp % (d.moeFfn / shape[0]!), shape }),
});
const expertDown = (name: string, also: readonly string[] = []): Use<NemotronHDims> => ({
  name,
  also,
  outputs: (_, { shape }) => [{ to: "expert.down", at: 0, from: 0, count: shape[0]! }],
  inputOffset: (d, { tp, shape }) => (tp % (d.moeFfn / shape[1]!)) * shape[1]!,
});

/** All experts in one tensor: the rows of one expert after the other. */
const stacked = (name: string, to: string, size: Size): Use<NemotronHDims> => ({
  name,
  outputs: (d, { expert }) => [{ to, at: 0, from: expert * size(d), count: size(d) }],
});

/** The fused tensor of one rank: its share of each part, one after the other. */
const fusedParts = (
  name: string,
  parts: Readonly<Record<string, Size>>,
  also: readonly string[] = [],
): Use<NemotronHDims> => ({
  name,
  also,
  outputs: (d, { tp, shape }) => {
    const sizes = Object.entries(parts).map(([to, size]) => ({ to, size: size(d) }));
    const ranks = sizes.reduce((sum, { size }) => sum + size, 0) / shape[0]!;
    if (tp >= ranks) return [];
    let from = 0;
    return sizes.map(({ to, size }) => {
      const feed = { to, at: (tp * size) / ranks, from, count: size / ranks };
      from += feed.count;
      return feed;
    });
  },
});

/**
 * Fused queries, keys and values: for each group of heads its queries, then its key, then its value. Rank t has rows
 * [t n, (t + 1) n), which need not be whole groups.
 */
function byGroup(d: NemotronHDims, { tp, shape }: TensorPosition): readonly OutputRows[] {
  const queries = (d.heads / d.kvHeads) * d.headDim;
  const first = tp * shape[0]!;
  const feeds: OutputRows[] = [];
  for (let group = 0; group < d.kvHeads; group++) {
    let from = group * (queries + 2 * d.headDim) - first;
    for (const [to, size] of [
      ["q", queries],
      ["k", d.headDim],
      ["v", d.headDim],
    ] as const) {
      const [lo, hi] = [Math.max(from, 0), Math.min(from + size, shape[0]!)];
      if (lo < hi) feeds.push({ to, at: group * size + lo - from, from: lo, count: hi - lo });
      from += size;
    }
  }
  return feeds;
}

const hidden: Size = (d) => d.hidden;
const inner: Size = (d) => d.inner;
const groupState: Size = (d) => d.groupState;
const mambaHeads: Size = (d) => d.mambaHeads;

/** NeMo's old converter gave the norm of every layer this name. */
const OLD_NORM = "mixer.in_proj.layer_norm_weight";

/** Tensors of both dialects. A norm is part of the module after it; in unfused builds it is a separate module. */
const shared = {
  embedding: [rows("embedding.word_embeddings.weight", "vocabulary", (d) => d.vocab)],
  mamba: [
    rows(OLD_NORM, "gain", hidden, ["norm.weight"]),
    rows("mixer.A_log", "A_log", mambaHeads),
    rows("mixer.D", "D", mambaHeads),
    rows("mixer.dt_bias", "dt_bias", mambaHeads),
    rows("mixer.norm.weight", "gate.gain", inner),
    columns("mixer.out_proj.weight", "out", inner),
  ],
  attention: [
    rows("self_attention.linear_qkv.layer_norm_weight", "gain", hidden, ["input_layernorm.weight", OLD_NORM]),
    { name: "self_attention.linear_qkv.weight", outputs: byGroup },
    columns("self_attention.linear_proj.weight", "out", (d) => d.q),
  ],
  mlp: [
    rows("mlp.linear_fc1.layer_norm_weight", "gain", hidden, ["pre_mlp_layernorm.weight", OLD_NORM]),
    rows("mlp.linear_fc1.weight", "up", (d) => d.ffn),
    columns("mlp.linear_fc2.weight", "out", (d) => d.ffn),
  ],
  moe: [
    rows("pre_mlp_layernorm.weight", "gain", hidden),
    rows("mlp.router.weight", "route", (d) => d.experts),
    rows("mlp.router.expert_bias", "correction", (d) => d.experts),
    rows("mlp.fc1_latent_proj.weight", "latent", (d) => d.latent),
    rows("mlp.fc2_latent_proj.weight", "routed", hidden),
    rows("mlp.shared_experts.linear_fc1.weight", "shared.up", (d) => d.moeShared),
    columns("mlp.shared_experts.linear_fc2.weight", "shared", (d) => d.moeShared),
  ],
  mtpStart: [
    rows("enorm.weight", "words.gain", hidden),
    rows("hnorm.weight", "gain", hidden),
    rows("eh_proj.weight", "out", hidden),
  ],
  mtpEnd: [rows("final_layernorm.weight", "gain", hidden)],
  head: [
    rows("decoder.final_norm.weight", "gain", hidden, ["decoder.final_layernorm.weight"]),
    rows("output_layer.weight", "logits", (d) => d.vocab),
  ],
} satisfies Native<NemotronHDims>["uses"];

const prefix: Native<NemotronHDims>["prefix"] = {
  main: "decoder.layers.{layer}.",
  mtp: "mtp.layers.{outer}.mtp_model_layer.layers.{inner}.",
  step: "mtp.layers.{outer}.",
};

/** Keys of a distributed checkpoint: shapes of the whole model, Mamba's fused matrices in named parts. */
export const megatron: Native<NemotronHDims> = {
  dialect: "megatron",
  prefix,
  uses: {
    ...shared,
    mamba: [
      ...shared.mamba,
      rows("mixer.in_proj.weight.z", "z", inner),
      rows("mixer.in_proj.weight.x", "x", inner),
      rows("mixer.in_proj.weight.B", "B", groupState),
      rows("mixer.in_proj.weight.C", "C", groupState),
      rows("mixer.in_proj.weight.dt", "dt", mambaHeads),
      ...[
        ["weight", "taps"],
        ["bias", "bias"],
      ].flatMap(([stored, to]) => [
        rows(`mixer.conv1d.${stored}.x`, `${to}.x`, inner),
        rows(`mixer.conv1d.${stored}.B`, `${to}.B`, groupState),
        rows(`mixer.conv1d.${stored}.C`, `${to}.C`, groupState),
      ]),
    ],
    moe: [
      ...shared.moe,
      stacked("mlp.experts.experts.linear_fc1.weight", "expert.up", (d) => d.moeFfn),
      stacked("mlp.experts.experts.linear_fc2.weight", "expert.down", (d) => d.moeWidth),
      expertUp("mlp.experts.experts.{expert}.linear_fc1.weight"),
      expertDown("mlp.experts.experts.{expert}.linear_fc2.weight"),
    ],
  },
};

/** Modules of one rank: fused tensors, and numbers of its own for layers and experts. */
export const megatronRanks: Native<NemotronHDims> = {
  dialect: "megatron-ranks",
  prefix,
  uses: {
    ...shared,
    mamba: [
      ...shared.mamba,
      fusedParts("mixer.in_proj.weight", {
        z: inner,
        x: inner,
        B: groupState,
        C: groupState,
        dt: mambaHeads,
      }),
      fusedParts("mixer.conv1d.weight", { "taps.x": inner, "taps.B": groupState, "taps.C": groupState }, [
        "mixer.conv1d_weight",
      ]),
      fusedParts("mixer.conv1d.bias", { "bias.x": inner, "bias.B": groupState, "bias.C": groupState }, [
        "mixer.conv1d_bias",
      ]),
    ],
    moe: [
      ...shared.moe,
      expertUp("mlp.experts.linear_fc1.weight{expert}", [
        "mlp.experts.local_experts.{expert}.linear_fc1.weight",
      ]),
      expertDown("mlp.experts.linear_fc2.weight{expert}", [
        "mlp.experts.local_experts.{expert}.linear_fc2.weight",
      ]),
    ],
  },
};
