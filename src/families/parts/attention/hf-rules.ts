/** How Hugging Face checkpoints name the tensors of an attention layer. */
import type { Rule } from "../../dialect.ts";
import type { AttentionDims } from "./dims.ts";

/** @param on kinds of layers with attention */
export function attentionRules<D extends AttentionDims>(on: readonly string[]): readonly Rule<D>[] {
  const rule = (name: string, role: string): Rule<D> => ({
    name: `self_attn.${name}`,
    on,
    is: (of) => of(role),
  });
  return ["q", "k", "v", "o"].flatMap((name) => [
    rule(`${name}_proj.weight`, `attn.${name}`),
    rule(`${name}_proj.bias`, `attn.${name}.bias`),
    ...(name === "q" || name === "k" ? [rule(`${name}_norm.weight`, `attn.${name}_norm`)] : []),
  ]);
}
