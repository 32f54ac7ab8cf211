/**
 * The rules of Megatron's GPTModel: keys of a distributed checkpoint, which has whole tensors, and modules of each rank. In
 * ranks a gated projection is the rank's share of the gate, then its share of the other half.
 */
import { concat, type Layout, reshape, shapeOf } from "../../../core/mapping/layout.ts";
import type { Is, Rule } from "../../dialect.ts";
import type { Dims } from "../../structure.ts";
import {
  columns,
  expertColumns,
  expertRows,
  gatedRows,
  interleaved,
  is,
  paddedRows,
  rows,
  whole,
} from "../megatron/cuts.ts";
import type { GptDims, GptTraits } from "./traits.ts";

const layerRule = <D extends Dims>(
  on: readonly string[],
  name: string,
  how: Is<D>,
  also: readonly string[] = [],
): Rule<D> => ({ name, also, on, is: how });

/** Norm weights, with biases in a layer norm. A norm is part of the module after it; in unfused builds it is separate. */
function norms<D extends Dims>(
  on: readonly string[],
  fused: string,
  separate: string,
  { layerNorm }: GptTraits,
): readonly Rule<D>[] {
  const parts = layerNorm
    ? [["weight", "norm"] as const, ["bias", "norm.bias"] as const]
    : [["weight", "norm"] as const];
  return parts.map(([part, role]) =>
    layerRule<D>(on, `${fused}.layer_norm_${part}`, is(role, whole), [`${separate}.${part}`]),
  );
}

/** Rules that both dialects share. */
function sharedRules<D extends GptDims>(traits: GptTraits): readonly Rule<D>[] {
  const { attention, layerNorm, gated } = traits;
  const fc1 = (suffix: string): Is<D> =>
    gated ? gatedRows(`mlp.gate${suffix}`, `mlp.up${suffix}`) : is(`mlp.up${suffix}`, rows);
  return [
    { name: "embedding.word_embeddings.weight", stage: "first", is: is("embed", paddedRows) },
    ...norms<D>(attention, "self_attention.linear_qkv", "input_layernorm", traits),
    layerRule(attention, "self_attention.linear_qkv.weight", interleaved()),
    layerRule(attention, "self_attention.linear_qkv.bias", interleaved(".bias")),
    layerRule(attention, "self_attention.q_layernorm.weight", is("attn.q_norm", whole)),
    layerRule(attention, "self_attention.k_layernorm.weight", is("attn.k_norm", whole)),
    layerRule(attention, "self_attention.linear_proj.weight", is("attn.o", columns)),
    layerRule(attention, "self_attention.linear_proj.bias", is("attn.o.bias", whole)),
    ...norms<D>(["mlp"], "mlp.linear_fc1", "pre_mlp_layernorm", traits),
    layerRule(["mlp"], "mlp.linear_fc1.weight", fc1("")),
    layerRule(["mlp"], "mlp.linear_fc1.bias", fc1(".bias")),
    layerRule(["mlp"], "mlp.linear_fc2.weight", is("mlp.down", columns)),
    layerRule(["mlp"], "mlp.linear_fc2.bias", is("mlp.down.bias", whole)),
    layerRule(["moe"], "pre_mlp_layernorm.weight", is("norm", whole)),
    layerRule(["moe"], "mlp.router.weight", is("moe.gate", whole)),
    {
      name: "decoder.final_layernorm.weight",
      also: ["decoder.final_norm.weight"],
      stage: "last",
      is: is("final.norm", whole),
    },
    ...(layerNorm
      ? [
          {
            name: "decoder.final_layernorm.bias",
            also: ["decoder.final_norm.bias"],
            stage: "last",
            is: is<D>("final.norm.bias", whole),
          } as const,
        ]
      : []),
    { name: "output_layer.weight", stage: "last", is: is("head", paddedRows) },
  ];
}

/** All experts of a layer as one tensor [experts, rows, columns]; the gate's rows come first. */
const stackedExperts =
  <D extends GptDims>(...roles: readonly string[]): Is<D> =>
  (of, d) =>
    concat(
      0,
      Array.from({ length: d.experts ?? 0 }, (_, expert) => matrixOf(roles.map((role) => of(role, expert)))),
    );

/** Rows one after the other, as a stack of one matrix. */
function matrixOf(parts: readonly Layout[]): Layout {
  const matrix = concat(0, parts);
  return reshape(matrix, [1, ...shapeOf(matrix)]);
}

/** Keys of the experts in checkpoints with a key for each expert (`singleton_local_shards`). */
const SINGLE_EXPERTS = [
  ["linear_fc1.weight_w", "moe.gate_proj"],
  ["linear_fc1.weight_v", "moe.up"],
  ["linear_fc2.weight", "moe.down"],
] as const;

/** Keys of a distributed checkpoint. */
export function distRules<D extends GptDims>(traits: GptTraits): readonly Rule<D>[] {
  return [
    ...sharedRules<D>(traits),
    layerRule(["moe"], "mlp.experts.experts.linear_fc1.weight", stackedExperts("moe.gate_proj", "moe.up")),
    layerRule(["moe"], "mlp.experts.experts.linear_fc2.weight", stackedExperts("moe.down")),
    ...SINGLE_EXPERTS.map(
      ([name, role]): Rule<D> => ({
        ...layerRule<D>(["moe"], `mlp.experts.experts.{expert}.${name}`, is(role, whole)),
        readOnly: true,
      }),
    ),
    {
      name: "output_layer.weight",
      copy: true,
      readOnly: true,
      when: (d) => d.tied === 1,
      is: is("embed", paddedRows),
    },
  ];
}

/** Modules of one rank. The last pipeline stage of a tied model has a copy of the token table as its head. */
export function rankRules<D extends GptDims>(traits: GptTraits): readonly Rule<D>[] {
  const expert = (n: 1 | 2, how: Is<D>): Rule<D> =>
    layerRule(["moe"], `mlp.experts.linear_fc${n}.weight{expert}`, how, [
      `mlp.experts.local_experts.{expert}.linear_fc${n}.weight`,
    ]);
  return [
    ...sharedRules<D>(traits),
    expert(1, gatedRows("moe.gate_proj", "moe.up", expertRows)),
    expert(2, is("moe.down", expertColumns)),
    {
      name: "output_layer.weight",
      stage: "lastOfSeveral",
      copy: true,
      when: (d) => d.tied === 1,
      is: is("embed", paddedRows),
    },
  ];
}
