/** llama.cpp's names for the tensors of Nemotron. It stores the gain of a norm, which other software stores less 1. */
import type { Dialect, Rule } from "../../dialect.ts";
import { attentionRules, layerRules, outerRules } from "../../parts/gguf/attention-rules.ts";
import { ggufDialect } from "../../parts/gguf/dialect.ts";
import { asF32 } from "../../parts/gguf/rules.ts";
import type { NemotronDims } from "../dims.ts";
import { limits, readSettings, writeConfig } from "./config.ts";

const isNorm = ({ name }: Rule<NemotronDims>): boolean => name.endsWith("_norm.weight");

const rules: readonly Rule<NemotronDims>[] = [
  ...outerRules<NemotronDims>(),
  asF32({ name: "output_norm.bias", is: (of) => of("final.norm.bias") }),
  ...attentionRules<NemotronDims>(["attention"], () => true),
  ...layerRules<NemotronDims>(["attention"], { "attn_norm.bias": "norm.bias" }).map(asF32),
  ...layerRules<NemotronDims>(["mlp"], {
    "ffn_norm.weight": "norm",
    "ffn_norm.bias": "norm.bias",
    "ffn_up.bias": "mlp.up.bias",
    "ffn_down.bias": "mlp.down.bias",
  }).map(asF32),
  ...layerRules<NemotronDims>(["mlp"], { "ffn_up.weight": "mlp.up", "ffn_down.weight": "mlp.down" }),
];

export const gguf: Dialect<NemotronDims> = ggufDialect({
  rules: rules.map((rule) => (isNorm(rule) ? { ...rule, stores: "+1" } : rule)),
  settings: readSettings,
  limits,
  config: writeConfig,
});
