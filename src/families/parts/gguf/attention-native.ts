/** Which stored tensors of a GGUF the stages of attention layers and of the head read. Written by hand, apart from the rules. */
import type { HeadPairs, Use } from "../../forward.ts";
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

/** Uses of an attention layer with the norm before it. */
export const attentionUses = <D extends AttentionDims>(
  pairsIn: (d: D) => HeadPairs | undefined,
  to?: string,
): readonly Use<D>[] => [
  whole("attn_norm.weight", "gain", (d) => d.hidden),
  ...attentionMixerUses<D>(pairsIn, to),
];

/**
 * @param pairsIn how rows of a head are stored in pairs; undefined: they are in order
 * @param to      the stream that the output projection produces
 */
export function attentionMixerUses<D extends AttentionDims>(
  pairsIn: (d: D) => HeadPairs | undefined,
  to = "out",
): readonly Use<D>[] {
  const product = (name: string, to: string, bias: (d: D) => number, count: (d: D) => number): Use<D> =>
    whole(name, (d) => productOf(to, bias(d)), count);
  const isBiased = (d: D) => d.qkvBias;
  return [
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
      to,
      (d) => d.outBias,
      (d) => d.hidden,
    ),
    whole("attn_output.bias", `${to}.bias`, (d) => d.hidden),
  ];
}

/** Heads with all rows in pairs. */
export const wholeHeads = (d: AttentionDims): HeadPairs => ({ width: d.headDim, paired: d.headDim });
