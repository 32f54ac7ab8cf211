/** The Hugging Face dialect: the tensor names of published checkpoints. */

import { attentionRules } from "../../parts/attention/hf-rules.ts";
import { hfDialect, keysIn, outerRules, tiedHeadRule } from "../../parts/hf/dialect.ts";
import type { HybridDims } from "../../parts/hybrid/dims.ts";
import { mambaRules } from "../../parts/mamba/hf-rules.ts";
import { mlpRules } from "../../parts/mlp/hf-rules.ts";
import { reader, readSettings } from "./config.ts";
import { writeConfig } from "./write.ts";

export const hf = hfDialect<HybridDims>({
  rules: [
    ...outerRules<HybridDims>("model.final_layernorm.weight"),
    tiedHeadRule<HybridDims>(),
    { name: "input_layernorm.weight", on: ["mamba", "attention"], is: (of) => of("norm") },
    ...mambaRules<HybridDims>(["mamba"]),
    ...attentionRules<HybridDims>(["attention"]),
    { name: "pre_ff_layernorm.weight", on: ["mlp"], is: (of) => of("norm") },
    ...mlpRules<HybridDims>(["mlp"], "feed_forward."),
  ],
  readSettings,
  config: writeConfig,
  ...keysIn(reader),
});
