/** The Hugging Face dialect: the tensor names of published checkpoints. */
import type { Rule } from "../../dialect.ts";
import { attentionRules } from "../../parts/attention/hf-rules.ts";
import { hfDialect, keysIn, outerRules, tiedHeadRule } from "../../parts/hf/dialect.ts";
import { mambaRules } from "../../parts/mamba/hf-rules.ts";
import { stackExperts } from "../../parts/stacked-experts.ts";
import type { GraniteDims } from "../dims.ts";
import { reader, readSettings } from "./config.ts";
import { writeConfig } from "./write.ts";

const sharedRules = (on: string, role: string): readonly Rule<GraniteDims>[] => [
  { name: "shared_mlp.input_linear.weight", on: [on], is: (of) => of(`${role}.in`) },
  { name: "shared_mlp.output_linear.weight", on: [on], is: (of) => of(`${role}.out`) },
];

export const hf = hfDialect<GraniteDims>({
  rules: [
    ...outerRules<GraniteDims>(),
    tiedHeadRule<GraniteDims>(),
    { name: "input_layernorm.weight", on: ["mamba", "attention"], is: (of) => of("norm") },
    ...mambaRules<GraniteDims>(["mamba"]),
    ...attentionRules<GraniteDims>(["attention"]),
    { name: "post_attention_layernorm.weight", on: ["mlp", "moe"], is: (of) => of("norm") },
    { name: "block_sparse_moe.router.layer.weight", on: ["moe"], is: (of) => of("moe.gate") },
    { name: "block_sparse_moe.input_linear.weight", on: ["moe"], is: stackExperts("moe.in") },
    { name: "block_sparse_moe.output_linear.weight", on: ["moe"], is: stackExperts("moe.out") },
    ...sharedRules("mlp", "mlp"),
    ...sharedRules("moe", "moe.shared"),
  ],
  readSettings,
  config: writeConfig,
  ...keysIn(reader),
});
