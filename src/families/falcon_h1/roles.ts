/** Roles of a Falcon-H1 model, in execution order. */
import { attentionRoles } from "../parts/attention/roles.ts";
import { mambaRoles } from "../parts/mamba/roles.ts";
import { gatedMlpRoles } from "../parts/mlp/roles.ts";
import type { RoleSpec } from "../structure.ts";
import type { FalconH1Dims } from "./dims.ts";

export const roles: readonly RoleSpec<FalconH1Dims>[] = [
  { role: "embed", kind: "embedding", shape: (d) => [d.vocab, d.hidden] },
  { role: "norm", on: "every", kind: "vector", shape: (d) => [d.hidden] },
  ...mambaRoles<FalconH1Dims>(["hybrid"]),
  ...attentionRoles<FalconH1Dims>(["hybrid"]),
  ...gatedMlpRoles<FalconH1Dims>(["mlp"]),
  { role: "final.norm", kind: "vector", shape: (d) => [d.hidden] },
  { role: "head", kind: "matrix", shape: (d) => [d.vocab, d.hidden], when: (d) => d.tied === 0 },
];
