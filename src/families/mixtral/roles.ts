/** Roles of a mixture of experts of the Mixtral kind, in execution order. */
import { attentionRoles } from "../parts/attention/roles.ts";
import { gatedMlpRoles } from "../parts/mlp/roles.ts";
import { moeRoles } from "../parts/moe/roles.ts";
import type { RoleSpec } from "../structure.ts";
import type { MixtralDims } from "./dims.ts";
import { ATTENTION } from "./settings.ts";

export const roles: readonly RoleSpec<MixtralDims>[] = [
  { role: "embed", kind: "embedding", shape: (d) => [d.vocab, d.hidden] },
  { role: "norm", on: "every", kind: "vector", shape: (d) => [d.hidden] },
  ...attentionRoles<MixtralDims>(ATTENTION),
  ...gatedMlpRoles<MixtralDims>(["mlp"]),
  ...moeRoles<MixtralDims>(["moe"]),
  { role: "final.norm", kind: "vector", shape: (d) => [d.hidden] },
  { role: "head", kind: "matrix", shape: (d) => [d.vocab, d.hidden], when: (d) => d.tied === 0 },
];
