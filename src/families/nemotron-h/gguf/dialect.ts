/** llama.cpp's names for the tensors of Nemotron-H: architectures nemotron_h and, with experts, nemotron_h_moe. */
import type { Dialect, Rule } from "../../dialect.ts";
import { refuseLimited, vocabularyIn } from "../../parts/gguf/dialect.ts";
import { mambaRules } from "../../parts/gguf/mamba-rules.ts";
import { asF32, inPairs } from "../../parts/gguf/rules.ts";
import { stackExperts } from "../../parts/stacked-experts.ts";
import { wholeParallelism } from "../../parts/whole-parallelism.ts";
import type { NemotronHDims } from "../dims.ts";
import { readSettings } from "./config.ts";
import { limits, writeConfig } from "./record.ts";

type NemotronHRule = Rule<NemotronHDims>;

const once = (name: string, role: string): NemotronHRule => ({ name, is: (of) => of(role) });

/** Rules by layer kind: name -> role. */
const on = (kind: string, names: Readonly<Record<string, string>>): NemotronHRule[] =>
  Object.entries(names).map(([name, role]) => ({ name, on: [kind], is: (of) => of(role) }));

const step = (mtp: "first" | "last", name: string, role: string): NemotronHRule => ({
  ...{ name, mtp, on: "every" },
  is: (of) => of(role),
});

const rules: readonly NemotronHRule[] = [
  once("token_embd.weight", "embed"),
  asF32({ name: "attn_norm.weight", on: "every", mtp: "never", is: (of) => of("norm") }),
  ...mambaRules<NemotronHDims>(["mamba"]),
  { name: "attn_q.weight", on: ["attention"], is: inPairs("attn.q", (d) => d.heads) },
  { name: "attn_k.weight", on: ["attention"], is: inPairs("attn.k", (d) => d.kvHeads) },
  ...on("attention", { "attn_v.weight": "attn.v", "attn_output.weight": "attn.o" }),
  ...on("mlp", { "ffn_up.weight": "mlp.up", "ffn_down.weight": "mlp.down" }),
  ...on("moe", { "ffn_gate_inp.weight": "moe.gate" }).map(asF32),
  ...on("moe", { "exp_probs_b.bias": "moe.gate.bias" }).map((rule) => ({
    ...asF32(rule),
    keepsDtype: true as const,
  })),
  ...on("moe", {
    "ffn_latent_down.weight": "moe.latent.in",
    "ffn_latent_up.weight": "moe.latent.out",
    "ffn_up_shexp.weight": "moe.shared.up",
    "ffn_down_shexp.weight": "moe.shared.down",
  }),
  { name: "ffn_up_exps.weight", on: ["moe"], is: stackExperts("moe.up") },
  { name: "ffn_down_exps.weight", on: ["moe"], is: stackExperts("moe.down") },
  step("first", "nextn.eh_proj.weight", "mtp.join"),
  ...[
    step("first", "nextn.enorm.weight", "mtp.embed_norm"),
    step("first", "nextn.hnorm.weight", "mtp.hidden_norm"),
    step("first", "attn_norm.weight", "norm"),
    step("last", "post_attention_norm.weight", "norm"),
    step("last", "nextn.shared_head_norm.weight", "mtp.final_norm"),
    once("output_norm.weight", "final.norm"),
  ].map(asF32),
  once("output.weight", "head"),
];

export const gguf: Dialect<NemotronHDims> = {
  id: "gguf",
  rules,
  stacks: { main: "blk.{layer}.", mtp: "blk.{after}." },
  drop: [],
  objects: () => [],
  settings: readSettings,
  vocabulary: vocabularyIn,
  parallelism: (_, model) => wholeParallelism(model),
  cut(model) {
    refuseLimited(limits(model.settings));
    return wholeParallelism(model);
  },
  config: writeConfig,
  keyRemarks: () => [],
};
