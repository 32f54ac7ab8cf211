/**
 * Nemotron-H: hybrid Mamba-2 / Transformer. Roles with their shapes.
 * @see arXiv 2504.03624; shapes as in the published 4B to 56B checkpoints
 */
import { mambaRoles } from "../parts/mamba/roles.ts";
import type { RoleSpec } from "../structure.ts";
import type { NemotronHDims } from "./dims.ts";

const experts = (d: NemotronHDims) => d.experts;
const latent = (d: NemotronHDims) => d.latent > 0;

/** In execution order: inside a layer the roles are used, and written, in this order. */
export const roles: readonly RoleSpec<NemotronHDims>[] = [
  { role: "embed", kind: "embedding", shape: (d) => [d.vocab, d.hidden] },

  { role: "mtp.embed_norm", on: "every", mtp: "first", kind: "vector", shape: (d) => [d.hidden] },
  { role: "mtp.hidden_norm", on: "every", mtp: "first", kind: "vector", shape: (d) => [d.hidden] },
  { role: "mtp.join", on: "every", mtp: "first", kind: "matrix", shape: (d) => [d.hidden, 2 * d.hidden] },

  { role: "norm", on: "every", kind: "vector", shape: (d) => [d.hidden] },

  ...mambaRoles<NemotronHDims>(["mamba"]),

  { role: "attn.q", on: ["attention"], kind: "matrix", fused: "qkv", shape: (d) => [d.q, d.hidden] },
  {
    role: "attn.k",
    on: ["attention"],
    kind: "matrix",
    fused: "qkv",
    cached: { as: "k", stream: () => "k" },
    shape: (d) => [d.kv, d.hidden],
  },
  {
    role: "attn.v",
    on: ["attention"],
    kind: "matrix",
    fused: "qkv",
    cached: { as: "v", stream: () => "v" },
    shape: (d) => [d.kv, d.hidden],
  },
  { role: "attn.o", on: ["attention"], kind: "matrix", shape: (d) => [d.hidden, d.q] },

  { role: "mlp.up", on: ["mlp"], kind: "matrix", shape: (d) => [d.ffn, d.hidden] },
  { role: "mlp.down", on: ["mlp"], kind: "matrix", shape: (d) => [d.hidden, d.ffn] },

  { role: "moe.gate", on: ["moe"], kind: "router", shape: (d) => [d.experts, d.hidden] },
  { role: "moe.gate.bias", on: ["moe"], kind: "router", shape: (d) => [d.experts] },
  { role: "moe.latent.in", on: ["moe"], kind: "matrix", shape: (d) => [d.latent, d.hidden], when: latent },
  { role: "moe.up", on: ["moe"], kind: "matrix", experts, shape: (d) => [d.moeFfn, d.moeWidth] },
  { role: "moe.down", on: ["moe"], kind: "matrix", experts, shape: (d) => [d.moeWidth, d.moeFfn] },
  { role: "moe.latent.out", on: ["moe"], kind: "matrix", shape: (d) => [d.hidden, d.latent], when: latent },
  { role: "moe.shared.up", on: ["moe"], kind: "matrix", shape: (d) => [d.moeShared, d.hidden] },
  { role: "moe.shared.down", on: ["moe"], kind: "matrix", shape: (d) => [d.hidden, d.moeShared] },

  { role: "mtp.final_norm", on: "every", mtp: "last", kind: "vector", shape: (d) => [d.hidden] },

  { role: "final.norm", kind: "vector", shape: (d) => [d.hidden] },
  { role: "head", kind: "matrix", tiedTo: "embed", shape: (d) => [d.vocab, d.hidden] },
];
