/** Roles of a Granite 4.0 model, in execution order. Gate and up are one matrix, as in the published files. */
import { attentionRoles } from "../parts/attention/roles.ts";
import { mambaRoles } from "../parts/mamba/roles.ts";
import type { RoleSpec } from "../structure.ts";
import type { GraniteDims } from "./dims.ts";

const halves = (width: number) => ({ gate: width, up: width });

/** The two matrices of the MLP that each token uses, under two names: in dense models, and beside experts. */
const sharedRoles = (name: string, on: readonly string[]): readonly RoleSpec<GraniteDims>[] => [
  {
    ...{ role: `${name}.in`, on, kind: "matrix", shape: (d) => [2 * d.ffn, d.hidden] },
    parts: (d) => halves(d.ffn),
  },
  { role: `${name}.out`, on, kind: "matrix", shape: (d) => [d.hidden, d.ffn] },
];

const experts = (d: GraniteDims) => d.experts;

export const roles: readonly RoleSpec<GraniteDims>[] = [
  { role: "embed", kind: "embedding", shape: (d) => [d.vocab, d.hidden] },
  { role: "norm", on: "every", kind: "vector", shape: (d) => [d.hidden] },
  ...mambaRoles<GraniteDims>(["mamba"]),
  ...attentionRoles<GraniteDims>(["attention"]),
  ...sharedRoles("mlp", ["mlp"]),
  { role: "moe.gate", on: ["moe"], kind: "router", shape: (d) => [d.experts, d.hidden] },
  {
    ...{ role: "moe.in", on: ["moe"], kind: "matrix", experts, shape: (d) => [2 * d.moeFfn, d.hidden] },
    parts: (d) => halves(d.moeFfn),
  },
  { role: "moe.out", on: ["moe"], kind: "matrix", experts, shape: (d) => [d.hidden, d.moeFfn] },
  ...sharedRoles("moe.shared", ["moe"]),
  { role: "final.norm", kind: "vector", shape: (d) => [d.hidden] },
  { role: "head", kind: "matrix", shape: (d) => [d.vocab, d.hidden], when: (d) => d.tied === 0 },
];
