/** The Hugging Face dialect: the tensor names and the config.json of published checkpoints. */
import { attentionRules } from "../../parts/attention/hf-rules.ts";
import { hfDialect, keysIn, outerRules, tiedHeadRule } from "../../parts/hf/dialect.ts";
import { mambaRules } from "../../parts/mamba/hf-rules.ts";
import { mlpRules } from "../../parts/mlp/hf-rules.ts";
import type { FalconH1Dims } from "../dims.ts";
import { reader, readSettings } from "./config.ts";
import { writeConfig } from "./write.ts";

export const hf = hfDialect<FalconH1Dims>({
  rules: [
    ...outerRules<FalconH1Dims>("model.final_layernorm.weight"),
    tiedHeadRule<FalconH1Dims>(),
    { name: "input_layernorm.weight", on: ["hybrid"], is: (of) => of("norm") },
    ...mambaRules<FalconH1Dims>(["hybrid"]),
    ...attentionRules<FalconH1Dims>(["hybrid"]),
    { name: "pre_ff_layernorm.weight", on: ["mlp"], is: (of) => of("norm") },
    ...mlpRules<FalconH1Dims>(["mlp"], "feed_forward."),
  ],
  readSettings,
  config: writeConfig,
  ...keysIn(reader),
});
