/** Roles of a Mamba-2 layer. */
import type { RoleSpec } from "../../structure.ts";
import { inParts, type MambaDims } from "./dims.ts";

/** @param on kinds of layers with a Mamba mixer */
export function mambaRoles<D extends MambaDims>(on: readonly string[]): readonly RoleSpec<D>[] {
  const perHead = (role: string): RoleSpec<D> => ({ role, on, kind: "state", shape: (d) => [d.mambaHeads] });
  const inRows = (d: D) => d.inner + d.conv + d.mambaHeads;
  return [
    { role: "ssm.in", on, kind: "matrix", shape: (d) => [inRows(d), d.hidden], parts: inParts },
    { role: "ssm.in.bias", on, kind: "vector", when: (d) => d.inBias === 1, shape: (d) => [inRows(d)] },
    { role: "ssm.conv", on, kind: "vector", shape: (d) => [d.conv, 1, d.taps] },
    { role: "ssm.conv.bias", on, kind: "vector", shape: (d) => [d.conv] },
    perHead("ssm.A_log"),
    perHead("ssm.D"),
    perHead("ssm.dt_bias"),
    { role: "ssm.norm", on, kind: "vector", when: (d) => d.normGroups > 0, shape: (d) => [d.inner] },
    { role: "ssm.out", on, kind: "matrix", shape: (d) => [d.hidden, d.inner] },
    { role: "ssm.out.bias", on, kind: "vector", when: (d) => d.ssmOutBias === 1, shape: (d) => [d.hidden] },
  ];
}
