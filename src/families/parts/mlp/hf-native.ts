/** Which stored tensors of a Hugging Face checkpoint the stages of an MLP read. Written by hand, apart from the rules. */
import type { Use } from "../../forward.ts";
import { productOf } from "../stages.ts";
import { whole } from "../whole.ts";
import type { MlpDims } from "./dims.ts";

/**
 * Uses of an MLP without a gate.
 *
 * @param gain   name of the norm's weight
 * @param prefix name of the module, with its dot
 * @param to     the stream that the output projection produces
 */
export function mlpUses<D extends MlpDims>(gain: string, prefix = "mlp.", to = "out"): readonly Use<D>[] {
  return [
    whole(gain, "gain", (d) => d.hidden),
    whole(
      `${prefix}up_proj.weight`,
      (d) => productOf("up", d.mlpBias),
      (d) => d.ffn,
    ),
    whole(`${prefix}up_proj.bias`, "up.bias", (d) => d.ffn),
    whole(
      `${prefix}down_proj.weight`,
      (d) => productOf(to, d.mlpBias),
      (d) => d.hidden,
    ),
    whole(`${prefix}down_proj.bias`, `${to}.bias`, (d) => d.hidden),
  ];
}

/** Uses of a gated MLP. */
export function gatedMlpUses<D extends MlpDims>(
  gain: string,
  prefix = "mlp.",
  to?: string,
): readonly Use<D>[] {
  return [
    ...mlpUses<D>(gain, prefix, to),
    whole(
      `${prefix}gate_proj.weight`,
      (d) => productOf("gate", d.mlpBias),
      (d) => d.ffn,
    ),
    whole(`${prefix}gate_proj.bias`, "gate.bias", (d) => d.ffn),
  ];
}
