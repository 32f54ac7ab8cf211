/** Which stored tensors of a GGUF the stages of MLPs and experts read. Written by hand, apart from the rules. */
import type { Use } from "../../forward.ts";
import type { MlpDims } from "../mlp/dims.ts";
import type { MoeDims } from "../moe/dims.ts";
import { productOf, type StreamDims } from "../stages.ts";
import { stackedExperts, whole } from "../whole.ts";

/** Uses of an MLP without a gate and without the norm before it. */
export function mlpUses<D extends MlpDims>(): readonly Use<D>[] {
  return [
    product("ffn_up.weight", "up", (d) => d.ffn),
    product("ffn_down.weight", "out", (d) => d.hidden),
    whole("ffn_up.bias", "up.bias", (d) => d.ffn),
    whole("ffn_down.bias", "out.bias", (d) => d.hidden),
  ];
}

/** Uses of a gated MLP with the norm before it. */
export function gatedMlpUses<D extends MlpDims>(): readonly Use<D>[] {
  return [
    whole("ffn_norm.weight", "gain", (d) => d.hidden),
    product("ffn_gate.weight", "gate", (d) => d.ffn),
    whole("ffn_gate.bias", "gate.bias", (d) => d.ffn),
    ...mlpUses<D>(),
  ];
}

/** Uses of a router and its gated experts. */
export function expertUses<D extends StreamDims & MoeDims>(): readonly Use<D>[] {
  return [
    whole("ffn_gate_inp.weight", "route", (d) => d.experts),
    stackedExperts("ffn_gate_exps.weight", "expert.gate", (d) => d.moeFfn),
    stackedExperts("ffn_up_exps.weight", "expert.up", (d) => d.moeFfn),
    stackedExperts("ffn_down_exps.weight", "expert.down", (d) => d.hidden),
  ];
}

const product = <D extends MlpDims>(name: string, to: string, count: (d: D) => number): Use<D> =>
  whole(name, (d) => productOf(to, d.mlpBias), count);
