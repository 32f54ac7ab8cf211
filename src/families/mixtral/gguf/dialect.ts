/** llama.cpp's names for the tensors of Mixtral and Qwen3-MoE. */
import type { Dialect } from "../../dialect.ts";
import { attentionRules, layerRules, outerRules } from "../../parts/gguf/attention-rules.ts";
import { ggufDialect } from "../../parts/gguf/dialect.ts";
import { asF32 } from "../../parts/gguf/rules.ts";
import { stackExperts } from "../../parts/stacked-experts.ts";
import type { MixtralDims } from "../dims.ts";
import { ATTENTION } from "../settings.ts";
import { limits, readSettings, writeConfig } from "./config.ts";

export const gguf: Dialect<MixtralDims> = ggufDialect({
  rules: [
    ...outerRules<MixtralDims>(),
    ...attentionRules<MixtralDims>(ATTENTION, (d) => d.qkNorm === 1),
    ...layerRules<MixtralDims>(["moe"], { "ffn_norm.weight": "norm", "ffn_gate_inp.weight": "moe.gate" }).map(
      asF32,
    ),
    { name: "ffn_gate_exps.weight", on: ["moe"], is: stackExperts("moe.gate_proj") },
    { name: "ffn_up_exps.weight", on: ["moe"], is: stackExperts("moe.up") },
    { name: "ffn_down_exps.weight", on: ["moe"], is: stackExperts("moe.down") },
  ],
  settings: readSettings,
  limits,
  config: writeConfig,
});
