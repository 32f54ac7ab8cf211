/** Roles of a dense model of the Llama kind, in execution order. */
import { attentionRoles } from "../parts/attention/roles.ts";
import { gatedMlpRoles } from "../parts/mlp/roles.ts";
import type { RoleSpec } from "../structure.ts";
import type { LlamaDims } from "./dims.ts";
import { ATTENTION } from "./settings.ts";

export const roles: readonly RoleSpec<LlamaDims>[] = [
  { role: "embed", kind: "embedding", shape: (d) => [d.vocab, d.hidden] },
  { role: "norm", on: "every", kind: "vector", shape: (d) => [d.hidden] },
  ...attentionRoles<LlamaDims>(ATTENTION),
  ...gatedMlpRoles<LlamaDims>(["mlp"]),
  { role: "final.norm", kind: "vector", shape: (d) => [d.hidden] },
  { role: "head", kind: "matrix", shape: (d) => [d.vocab, d.hidden], when: (d) => d.tied === 0 },
];
