/** Roles of a Bamba model, in execution order. */
import { attentionRoles } from "../parts/attention/roles.ts";
import type { HybridDims } from "../parts/hybrid/dims.ts";
import { mambaRoles } from "../parts/mamba/roles.ts";
import { gatedMlpRoles } from "../parts/mlp/roles.ts";
import type { RoleSpec } from "../structure.ts";

export const roles: readonly RoleSpec<HybridDims>[] = [
  { role: "embed", kind: "embedding", shape: (d) => [d.vocab, d.hidden] },
  { role: "norm", on: "every", kind: "vector", shape: (d) => [d.hidden] },
  ...mambaRoles<HybridDims>(["mamba"]),
  ...attentionRoles<HybridDims>(["attention"]),
  ...gatedMlpRoles<HybridDims>(["mlp"]),
  { role: "final.norm", kind: "vector", shape: (d) => [d.hidden] },
  { role: "head", kind: "matrix", shape: (d) => [d.vocab, d.hidden], when: (d) => d.tied === 0 },
];
