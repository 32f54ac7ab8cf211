/** Which stored tensors of a Hugging Face checkpoint the stages of an attention layer read. Written by hand, apart from the rules. */
import type { Use } from "../../forward.ts";
import { productOf } from "../stages.ts";
import { whole } from "../whole.ts";
import type { AttentionDims } from "./dims.ts";

/** @param gain name of the norm's weight */
export const attentionUses = <D extends AttentionDims>(gain: string, to?: string): readonly Use<D>[] => [
  whole(gain, "gain", (d) => d.hidden),
  ...attentionMixerUses<D>(to),
];

/**
 * Uses without the norm before the projections.
 *
 * @param to the stream that the output projection produces
 */
export function attentionMixerUses<D extends AttentionDims>(to = "out"): readonly Use<D>[] {
  return [
    whole(
      "self_attn.q_proj.weight",
      (d) => productOf("q", d.qkvBias),
      (d) => d.q,
    ),
    whole(
      "self_attn.k_proj.weight",
      (d) => productOf("k", d.qkvBias),
      (d) => d.kv,
    ),
    whole(
      "self_attn.v_proj.weight",
      (d) => productOf("v", d.qkvBias),
      (d) => d.kv,
    ),
    whole("self_attn.q_proj.bias", "q.bias", (d) => d.q),
    whole("self_attn.k_proj.bias", "k.bias", (d) => d.kv),
    whole("self_attn.v_proj.bias", "v.bias", (d) => d.kv),
    whole("self_attn.q_norm.weight", "q.gain", (d) => d.headDim),
    whole("self_attn.k_norm.weight", "k.gain", (d) => d.headDim),
    whole(
      "self_attn.o_proj.weight",
      (d) => productOf(to, d.outBias),
      (d) => d.hidden,
    ),
    whole("self_attn.o_proj.bias", `${to}.bias`, (d) => d.hidden),
  ];
}
