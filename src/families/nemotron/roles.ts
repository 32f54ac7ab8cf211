/** Roles of a Nemotron model, in execution order. */
import { attentionRoles } from "../parts/attention/roles.ts";
import { mlpRoles } from "../parts/mlp/roles.ts";
import type { RoleSpec } from "../structure.ts";
import type { NemotronDims } from "./dims.ts";

export const roles: readonly RoleSpec<NemotronDims>[] = [
  { role: "embed", kind: "embedding", shape: (d) => [d.vocab, d.hidden] },
  { role: "norm", on: "every", kind: "vector", shape: (d) => [d.hidden] },
  { role: "norm.bias", on: "every", kind: "vector", shape: (d) => [d.hidden] },
  ...attentionRoles<NemotronDims>(["attention"]),
  ...mlpRoles<NemotronDims>(["mlp"]),
  { role: "final.norm", kind: "vector", shape: (d) => [d.hidden] },
  { role: "final.norm.bias", kind: "vector", shape: (d) => [d.hidden] },
  { role: "head", kind: "matrix", shape: (d) => [d.vocab, d.hidden] },
];
