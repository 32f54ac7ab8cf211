/** Roles of a layer of gated experts. */
import type { RoleSpec } from "../../structure.ts";
import type { MoeDims } from "./dims.ts";

/** @param on kinds of layers with experts */
export function moeRoles<D extends MoeDims>(on: readonly string[]): readonly RoleSpec<D>[] {
  const experts = (d: D) => d.experts;
  return [
    { role: "moe.gate", on, kind: "router", shape: (d) => [d.experts, d.hidden] },
    ...["moe.gate_proj", "moe.up"].map(
      (role): RoleSpec<D> => ({
        ...{ role, on, kind: "matrix", experts, fused: "gate_up" },
        shape: (d) => [d.moeFfn, d.hidden],
      }),
    ),
    { role: "moe.down", on, kind: "matrix", experts, shape: (d) => [d.hidden, d.moeFfn] },
  ];
}
