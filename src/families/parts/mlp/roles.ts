/** Roles of a gated MLP. */
import type { RoleSpec } from "../../structure.ts";
import type { MlpDims } from "./dims.ts";

/** @param on kinds of layers with such an MLP */
export function gatedMlpRoles<D extends MlpDims>(on: readonly string[]): readonly RoleSpec<D>[] {
  const when = (d: D) => d.mlpBias === 1;
  return [
    ...["mlp.gate", "mlp.up"].map(
      (role): RoleSpec<D> => ({
        role,
        on,
        kind: "matrix",
        fused: "gate_up",
        shape: (d) => [d.ffn, d.hidden],
      }),
    ),
    ...["mlp.gate", "mlp.up"].map(
      (role): RoleSpec<D> => ({ role: `${role}.bias`, on, kind: "vector", when, shape: (d) => [d.ffn] }),
    ),
    { role: "mlp.down", on, kind: "matrix", shape: (d) => [d.hidden, d.ffn] },
    { role: "mlp.down.bias", on, kind: "vector", when, shape: (d) => [d.hidden] },
  ];
}
