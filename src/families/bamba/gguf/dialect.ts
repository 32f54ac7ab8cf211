/** llama.cpp's names for the tensors of Bamba. */
import type { Dialect, Rule } from "../../dialect.ts";
import { attentionRules, layerRules, outerRules } from "../../parts/gguf/attention-rules.ts";
import { ggufDialect } from "../../parts/gguf/dialect.ts";
import { hasMamba, hybridLimits } from "../../parts/gguf/hybrid-keys.ts";
import { mambaRules } from "../../parts/gguf/mamba-rules.ts";
import { asF32 } from "../../parts/gguf/rules.ts";
import type { HybridDims } from "../../parts/hybrid/dims.ts";
import { pairsTurned, readSettings, writeConfig } from "./config.ts";

const mlp = layerRules<HybridDims>(["mlp"], {
  "ffn_gate.weight": "mlp.gate",
  "ffn_up.weight": "mlp.up",
  "ffn_down.weight": "mlp.down",
});

const mlpVectors = layerRules<HybridDims>(["mlp"], {
  "ffn_norm.weight": "norm",
  "ffn_gate.bias": "mlp.gate.bias",
  "ffn_up.bias": "mlp.up.bias",
  "ffn_down.bias": "mlp.down.bias",
}).map(asF32);

/** @param turned elements of each head that are in pairs; absent: all */
const rulesWith = (turned?: (d: HybridDims) => number): readonly Rule<HybridDims>[] => [
  ...outerRules<HybridDims>(),
  ...layerRules<HybridDims>(["mamba"], { "attn_norm.weight": "norm" }).map(asF32),
  ...mambaRules<HybridDims>(["mamba"]),
  ...attentionRules<HybridDims>(["attention"], () => false, turned),
  ...mlpVectors,
  ...mlp,
];

/** llama.cpp turns neighbours, so only the elements that are turned are in pairs. */
export const gguf: Dialect<HybridDims> = ggufDialect({
  rules: rulesWith((d) => d.rotary!.rotary), // every model of this family has positions
  settings: readSettings,
  limits: (settings) => [
    [!hasMamba(settings), "it needs a Mamba layer in this architecture, and this model has none"],
    ...hybridLimits(settings),
  ],
  config: writeConfig,
});

/**
 * Files of the genuine converter, which pairs the elements of the whole head. llama.cpp then turns other elements than the model
 * does; here they run as the model does.
 */
export const wholeHeadPairs: Dialect<HybridDims> = {
  ...gguf,
  id: "gguf-whole-head-pairs",
  variantOf: "gguf",
  reads: (config) => !pairsTurned(config),
  rules: rulesWith(),
};
