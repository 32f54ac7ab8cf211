/** How llama.cpp names the tensors of models of attention and MLPs, outside the layers and in attention layers. */
import type { Rule } from "../../dialect.ts";
import type { Dims } from "../../structure.ts";
import type { AttentionDims } from "../attention/dims.ts";
import { asF32, inPairs } from "./rules.ts";

/** Tensors outside the layers. A tied model has no head. */
export const outerRules = <D extends Dims>(): readonly Rule<D>[] => [
  { name: "token_embd.weight", is: (of) => of("embed") },
  asF32({ name: "output_norm.weight", is: (of) => of("final.norm") }),
  { name: "output.weight", is: (of) => of("head") },
];

/** Rules of one kind of layer: name -> role. */
export const layerRules = <D extends Dims>(
  on: readonly string[],
  names: Readonly<Record<string, string>>,
): Rule<D>[] => Object.entries(names).map(([name, role]) => ({ name, on, is: (of) => of(role) }));

/**
 * @param on          kinds of layers with attention
 * @param turnsHalves whether the architecture turns halves of a head, as Hugging Face does; else it turns neighbours
 * @param turned      elements of each head that are in pairs where it turns neighbours; default all
 */
export function attentionRules<D extends AttentionDims>(
  on: readonly string[],
  turnsHalves: (d: D) => boolean,
  turned?: (d: D) => number,
): readonly Rule<D>[] {
  /** Queries or keys, weight and bias. */
  const rotated = (name: string, role: string, heads: (d: D) => number): Rule<D>[] => {
    const isOf = (part: string): Rule<D>["is"] => {
      const paired = inPairs<D>(part, heads, turned);
      return (of, d, at) => (turnsHalves(d) ? of(part) : paired(of, d, at));
    };
    return [
      { name: `${name}.weight`, on, is: isOf(role) },
      asF32({ name: `${name}.bias`, on, is: isOf(`${role}.bias`) }),
    ];
  };
  return [
    ...layerRules<D>(on, { "attn_norm.weight": "norm" }).map(asF32),
    ...rotated("attn_q", "attn.q", (d) => d.heads),
    ...rotated("attn_k", "attn.k", (d) => d.kvHeads),
    ...layerRules<D>(on, { "attn_v.weight": "attn.v", "attn_output.weight": "attn.o" }),
    ...layerRules<D>(on, {
      "attn_v.bias": "attn.v.bias",
      "attn_output.bias": "attn.o.bias",
      "attn_q_norm.weight": "attn.q_norm",
      "attn_k_norm.weight": "attn.k_norm",
    }).map(asF32),
  ];
}
