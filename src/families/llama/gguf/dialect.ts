/** llama.cpp's names for the tensors of Llama, Mistral, Qwen2 and Qwen3. */
import type { Dialect } from "../../dialect.ts";
import { attentionRules, layerRules, outerRules } from "../../parts/gguf/attention-rules.ts";
import { ggufDialect } from "../../parts/gguf/dialect.ts";
import { asF32 } from "../../parts/gguf/rules.ts";
import type { LlamaDims } from "../dims.ts";
import { ATTENTION } from "../settings.ts";
import { limits, readSettings, writeConfig } from "./config.ts";

export const gguf: Dialect<LlamaDims> = ggufDialect({
  rules: [
    ...outerRules<LlamaDims>(),
    ...attentionRules<LlamaDims>(ATTENTION, (d) => d.qkNorm === 1 || (d.qkvBias === 1 && d.outBias === 0)),
    ...layerRules<LlamaDims>(["mlp"], { "ffn_norm.weight": "norm" }).map(asF32),
    ...layerRules<LlamaDims>(["mlp"], {
      "ffn_gate.weight": "mlp.gate",
      "ffn_up.weight": "mlp.up",
      "ffn_down.weight": "mlp.down",
    }),
    ...layerRules<LlamaDims>(["mlp"], {
      "ffn_gate.bias": "mlp.gate.bias",
      "ffn_up.bias": "mlp.up.bias",
      "ffn_down.bias": "mlp.down.bias",
    }).map(asF32),
  ],
  settings: readSettings,
  limits,
  config: writeConfig,
});
