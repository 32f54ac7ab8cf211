/** Which stored tensors of a GGUF the stages of attention layers and of the head read. Written by hand, apart from the rules. */
import type { Use } from "../../forward.ts";
import type { AttentionDims } from "../attention/dims.ts";
import { productOf } from "../stages.ts";
import { whole } from "../whole.ts";

const TABLE = "token_embd.weight";

export const embeddingUses = <D extends AttentionDims>(): readonly Use<D>[] => [
  whole(TABLE, "vocabulary", (d) => d.vocab),
];

export const headUses = <D extends AttentionDims>(): readonly Use<D>[] => [
  whole("output_norm.weight", "gain", (d) => d.hidden),
  // a tied model stores no head
  { ...whole<D>("output.weight", "logits", (d) => d.vocab), also: [TABLE] },
];

/** @param pairsIn width of a head whose rows are stored in pairs; undefined: they are in order */
export function attentionUses<D extends AttentionDims>(
  pairsIn: (d: D) => number | undefined,
): readonly Use<D>[] {
  const product = (name: string, to: string, bias: (d: D) => number, count: (d: D) => number): Use<D> =>
    whole(name, (d) => productOf(to, bias(d)), count);
  const isBiased = (d: D) => d.qkvBias;
  return [
    whole("attn_norm.weight", "gain", (d) => d.hidden),
    { ...product("attn_q.weight", "q", isBiased, (d) => d.q), pairsIn },
    { ...product("attn_k.weight", "k", isBiased, (d) => d.kv), pairsIn },
    product("attn_v.weight", "v", isBiased, (d) => d.kv),
    { ...whole<D>("attn_q.bias", "q.bias", (d) => d.q), pairsIn },
    { ...whole<D>("attn_k.bias", "k.bias", (d) => d.kv), pairsIn },
    whole("attn_v.bias", "v.bias", (d) => d.kv),
    whole("attn_q_norm.weight", "q.gain", (d) => d.headDim),
    whole("attn_k_norm.weight", "k.gain", (d) => d.headDim),
    product(
      "attn_output.weight",
      "out",
      (d) => d.outBias,
      (d) => d.hidden,
    ),
    whole("attn_output.bias", "out.bias", (d) => d.hidden),
  ];
}
