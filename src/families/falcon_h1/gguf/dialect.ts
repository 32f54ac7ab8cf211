/** llama.cpp's names for the tensors of Falcon-H1, whose weights are multiplied by the multipliers of the model. */
import type { Dialect, Rule } from "../../dialect.ts";
import { attentionRules, layerRules, outerRules } from "../../parts/gguf/attention-rules.ts";
import { ggufDialect } from "../../parts/gguf/dialect.ts";
import { mambaRules } from "../../parts/gguf/mamba-rules.ts";
import { asF32 } from "../../parts/gguf/rules.ts";
import { inParts } from "../../parts/mamba/dims.ts";
import type { FalconH1Dims } from "../dims.ts";
import { MULTIPLIER_SETTINGS } from "../multipliers.ts";
import { limits, readSettings, writeConfig } from "./config.ts";

/** By name, the numbers that multiply the rows of a matrix. */
const TIMES: Readonly<Record<string, NonNullable<Rule<FalconH1Dims>["times"]>>> = {
  "token_embd.weight": (d) => d.embeddingMultiplier,
  "output.weight": (d) => d.lmHeadMultiplier,
  "ssm_in.weight": (d) =>
    Object.values(inParts(d)).map((rows, part) => ({
      rows,
      factor: d.ssmInMultiplier * d.ssmMultipliers[part]!,
    })),
  "ssm_out.weight": (d) => d.ssmOutMultiplier,
  "attn_q.weight": (d) => d.attentionInMultiplier,
  "attn_k.weight": (d) => d.attentionInMultiplier * d.keyMultiplier,
  "attn_v.weight": (d) => d.attentionInMultiplier,
  "attn_output.weight": (d) => d.attentionOutMultiplier,
  "ffn_gate.weight": (d) => d.mlpMultipliers[0]!,
  "ffn_up.weight": () => 1, // F32 as its neighbours, because other software joins them
  "ffn_down.weight": (d) => d.mlpMultipliers[1]!,
};

/** Whether every multiplier is 1: then matrices are stored as they are, in any type. */
const isPlain = (d: FalconH1Dims): boolean =>
  // the dims have the multipliers under the names of their settings
  MULTIPLIER_SETTINGS.every((name) => [d[name as keyof FalconH1Dims]].flat().every((value) => value === 1));

const rules: readonly Rule<FalconH1Dims>[] = [
  ...outerRules<FalconH1Dims>(),
  ...mambaRules<FalconH1Dims>(["hybrid"]),
  // "attn_norm.weight" comes before both mixers
  ...attentionRules<FalconH1Dims>(["hybrid"], () => true),
  ...layerRules<FalconH1Dims>(["mlp"], { ffn_norm: "norm" }).map(asF32), // llama.cpp wants this name without an ending
  ...layerRules<FalconH1Dims>(["mlp"], {
    "ffn_gate.weight": "mlp.gate",
    "ffn_up.weight": "mlp.up",
    "ffn_down.weight": "mlp.down",
  }),
];

export const gguf: Dialect<FalconH1Dims> = ggufDialect({
  rules: rules.map((rule) => {
    const times = TIMES[rule.name];
    return times === undefined ? rule : { ...rule, times: (d) => (isPlain(d) ? undefined : times(d)) };
  }),
  settings: readSettings,
  limits,
  config: writeConfig,
});
