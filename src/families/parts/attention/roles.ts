/** Roles of an attention layer. */
import type { RoleSpec } from "../../structure.ts";
import type { AttentionDims } from "./dims.ts";
import { cachedKeys } from "./stages.ts";

/** @param on kinds of layers with attention */
export function attentionRoles<D extends AttentionDims>(on: readonly string[]): readonly RoleSpec<D>[] {
  const heads = [
    ["q", (d: D) => d.q],
    ["k", (d: D) => d.kv],
    ["v", (d: D) => d.kv],
  ] as const;
  const cached = {
    q: undefined,
    k: { as: "k", stream: (d: D) => cachedKeys(d) },
    v: { as: "v", stream: () => "v" },
  } as const;
  const bias = (name: string, size: (d: D) => number, when: (d: D) => number): RoleSpec<D> => ({
    ...{ role: `attn.${name}.bias`, on, kind: "vector", when: (d) => when(d) === 1 },
    shape: (d) => [size(d)],
  });
  const headNorm = (name: string): RoleSpec<D> => ({
    ...{ role: `attn.${name}_norm`, on, kind: "vector", when: (d) => d.qkNorm === 1 },
    shape: (d) => [d.headDim],
  });
  return [
    ...heads.map(
      ([name, size]): RoleSpec<D> => ({
        ...{ role: `attn.${name}`, on, kind: "matrix", fused: "qkv" },
        ...(cached[name] !== undefined && { cached: cached[name] }),
        shape: (d) => [size(d), d.hidden],
      }),
    ),
    ...heads.map(([name, size]) => bias(name, size, (d) => d.qkvBias)),
    headNorm("q"),
    headNorm("k"),
    { role: "attn.o", on, kind: "matrix", shape: (d) => [d.hidden, d.q] },
    bias(
      "o",
      (d) => d.hidden,
      (d) => d.outBias,
    ),
  ];
}
