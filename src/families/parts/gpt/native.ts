/** Which stored tensors of Megatron's GPTModel the stages of a dense layer read. Written by hand, apart from the rules. */
import type { Native, Use } from "../../forward.ts";
import { byGroup, columns, expertDown, fusedParts, rows } from "../megatron/native-uses.ts";
import type { MoeDims } from "../moe/dims.ts";
import { productOf } from "../stages.ts";
import { stackedExperts } from "../whole.ts";
import type { GptDims, GptTraits } from "./traits.ts";

type Size<D> = (d: D) => number;

const hidden = (d: GptDims) => d.hidden;

/** Weight, and bias if it is a layer norm, of a norm that is part of the module after it or stands alone. */
function norm<D extends GptDims>(
  fused: string,
  separate: string,
  { layerNorm }: GptTraits,
): readonly Use<D>[] {
  const part = (name: string, to: string) =>
    rows<D>(`${fused}.layer_norm_${name}`, to, hidden, [`${separate}.${name}`]);
  return [part("weight", "gain"), ...(layerNorm ? [part("bias", "shift")] : [])];
}

/** Uses by kind of layer; a family adds those of its experts. */
export function gptUses<D extends GptDims>(traits: GptTraits) {
  const { attention: kinds, layerNorm, gated } = traits;
  const kv: Size<D> = (d) => d.headDim;
  const attention: readonly Use<D>[] = [
    ...norm<D>("self_attention.linear_qkv", "input_layernorm", traits),
    {
      name: "self_attention.linear_qkv.weight",
      outputs: byGroup((d, stream) => productOf(stream, d.qkvBias)),
    },
    { name: "self_attention.linear_qkv.bias", outputs: byGroup((_, stream) => `${stream}.bias`) },
    rows("self_attention.q_layernorm.weight", "q.gain", kv),
    rows("self_attention.k_layernorm.weight", "k.gain", kv),
    columns(
      "self_attention.linear_proj.weight",
      (d) => productOf("out", d.outBias),
      (d) => d.q,
    ),
    rows("self_attention.linear_proj.bias", "out.bias", hidden),
  ];
  const halves = (name: (d: D, stream: string) => string) => (d: D) =>
    Object.fromEntries(["gate", "up"].map((stream) => [name(d, stream), d.ffn]));
  const mlp: readonly Use<D>[] = [
    ...norm<D>("mlp.linear_fc1", "pre_mlp_layernorm", traits),
    ...(gated
      ? [
          fusedParts<D>(
            "mlp.linear_fc1.weight",
            halves((d, stream) => productOf(stream, d.mlpBias)),
          ),
          fusedParts<D>(
            "mlp.linear_fc1.bias",
            halves((_, stream) => `${stream}.bias`),
          ),
        ]
      : [
          rows<D>(
            "mlp.linear_fc1.weight",
            (d) => productOf("up", d.mlpBias),
            (d) => d.ffn,
          ),
          rows<D>("mlp.linear_fc1.bias", "up.bias", (d) => d.ffn),
        ]),
    columns(
      "mlp.linear_fc2.weight",
      (d) => productOf("out", d.mlpBias),
      (d) => d.ffn,
    ),
    rows("mlp.linear_fc2.bias", "out.bias", hidden),
  ];
  const table = "embedding.word_embeddings.weight";
  return {
    embedding: [rows<D>(table, "vocabulary", (d) => d.vocab)],
    ...Object.fromEntries(kinds.map((kind) => [kind, attention])),
    mlp,
    head: [
      rows<D>("decoder.final_layernorm.weight", "gain", hidden, ["decoder.final_norm.weight"]),
      ...(layerNorm
        ? [rows<D>("decoder.final_layernorm.bias", "shift", hidden, ["decoder.final_norm.bias"])]
        : []),
      // a tied model has no head of its own
      rows<D>("output_layer.weight", "logits", (d) => d.vocab, [table]),
    ],
  } satisfies Native<D>["uses"];
}

/** Uses of a layer of experts: whole tensors, and modules of one rank. Each expert's gate comes before its other half. */
export function gptExpertUses<D extends GptDims & MoeDims>(): Readonly<
  Record<"whole" | "rank", readonly Use<D>[]>
> {
  const shared: readonly Use<D>[] = [
    rows("pre_mlp_layernorm.weight", "gain", hidden),
    rows("mlp.router.weight", "route", (d) => d.experts),
  ];
  const own = (name: string, to: string, size: Size<D>): Use<D> => ({
    name: `mlp.experts.experts.{expert}.${name}`,
    outputs: (d) => [{ to, at: 0, from: 0, count: size(d) }],
  });
  const inner: Size<D> = (d) => d.moeFfn;
  return {
    whole: [
      ...shared,
      {
        name: "mlp.experts.experts.linear_fc1.weight", // [experts * 2 moeFfn, hidden]
        outputs: ({ moeFfn: count }, { expert }) => [
          { to: "expert.gate", at: 0, from: 2 * expert * count, count },
          { to: "expert.up", at: 0, from: (2 * expert + 1) * count, count },
        ],
      },
      stackedExperts("mlp.experts.experts.linear_fc2.weight", "expert.down", hidden),
      own("linear_fc1.weight_w", "expert.gate", inner),
      own("linear_fc1.weight_v", "expert.up", inner),
      own("linear_fc2.weight", "expert.down", hidden),
    ],
    rank: [
      ...shared,
      {
        name: "mlp.experts.linear_fc1.weight{expert}",
        also: ["mlp.experts.local_experts.{expert}.linear_fc1.weight"],
        outputs: ({ moeFfn }, { tp, shape }) => {
          const count = shape[0]! / 2;
          const at = (tp % (moeFfn / count)) * count;
          return [
            { to: "expert.gate", at, from: 0, count },
            { to: "expert.up", at, from: count, count },
          ];
        },
      },
      expertDown("mlp.experts.linear_fc2.weight{expert}", [
        "mlp.experts.local_experts.{expert}.linear_fc2.weight",
      ]),
    ],
  };
}

/** GPTModel numbers blocks of attention and MLP; the hybrid model numbers each of the two. */
export function gptNatives<D extends GptDims>(
  uses: Native<D>["uses"],
  rankUses: Native<D>["uses"] = uses,
): readonly Native<D>[] {
  const block = { main: "decoder.layers.{outer}." };
  return [
    { dialect: "megatron", prefix: block, uses },
    { dialect: "megatron-hybrid", prefix: { main: "decoder.layers.{layer}." }, uses },
    { dialect: "megatron-ranks", prefix: block, uses: rankUses },
  ];
}
