/** How Hugging Face checkpoints name the tensors of an MLP. */
import type { Rule } from "../../dialect.ts";
import type { MlpDims } from "./dims.ts";

/**
 * Rules of an MLP, gated or not.
 *
 * @param on     kinds of layers with such an MLP
 * @param prefix name of the module, with its dot
 */
export function mlpRules<D extends MlpDims>(on: readonly string[], prefix = "mlp."): readonly Rule<D>[] {
  return ["gate", "up", "down"].flatMap((name) =>
    ["weight", "bias"].map((part): Rule<D> => {
      const role = `mlp.${name}${part === "bias" ? ".bias" : ""}`;
      return { name: `${prefix}${name}_proj.${part}`, on, is: (of) => of(role) };
    }),
  );
}
