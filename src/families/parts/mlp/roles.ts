/** Roles of an MLP. */
import type { RoleSpec } from "../../structure.ts";
import type { MlpDims } from "./dims.ts";

/**
 * Roles of an MLP without a gate.
 *
 * @param on kinds of layers with such an MLP
 */
export const mlpRoles = <D extends MlpDims>(on: readonly string[]): readonly RoleSpec<D>[] =>
  rolesOf(on, ["mlp.up"]);

/**
 * Roles of a gated MLP.
 *
 * @param on kinds of layers with such an MLP
 */
export const gatedMlpRoles = <D extends MlpDims>(on: readonly string[]): readonly RoleSpec<D>[] =>
  rolesOf(on, ["mlp.gate", "mlp.up"]);

/** @param inner projections to the inner width; several are fused */
function rolesOf<D extends MlpDims>(on: readonly string[], inner: readonly string[]): readonly RoleSpec<D>[] {
  const when = (d: D) => d.mlpBias === 1;
  return [
    ...inner.map(
      (role): RoleSpec<D> => ({
        ...{ role, on, kind: "matrix", ...(inner.length > 1 && { fused: "gate_up" }) },
        shape: (d) => [d.ffn, d.hidden],
      }),
    ),
    ...inner.map(
      (role): RoleSpec<D> => ({ role: `${role}.bias`, on, kind: "vector", when, shape: (d) => [d.ffn] }),
    ),
    { role: "mlp.down", on, kind: "matrix", shape: (d) => [d.hidden, d.ffn] },
    { role: "mlp.down.bias", on, kind: "vector", when, shape: (d) => [d.hidden] },
  ];
}
