/** Writes config.json for a model from a GGUF, as the published releases spell it. */
import { configOf } from "../../parts/hf/config.ts";
import { expandOf, type HfModel, HYBRID_KEYS, hybridConstants } from "../../parts/hybrid/write.ts";

/** Keys of settings that are written as they are. */
const KEYS = {
  ...HYBRID_KEYS,
  ffn: "shared_intermediate_size",
  topK: "num_experts_per_tok",
  embeddingMultiplier: "embedding_multiplier",
  attentionMultiplier: "attention_multiplier",
  residualMultiplier: "residual_multiplier",
  logitsScaling: "logits_scaling",
} as const;

export function writeConfig(model: HfModel) {
  const { settings, passthrough } = model;
  const mixers = [...String(settings.pattern)].filter((letter) => letter === "M" || letter === "*");
  const own = {
    ...{ architectures: ["GraniteMoeHybridForCausalLM"], model_type: "granitemoehybrid" },
    ...{ ...hybridConstants(passthrough), ...expandOf(settings) },
    layer_types: mixers.map((letter) => (letter === "M" ? "mamba" : "attention")),
    position_embedding_type: settings.rotary === undefined ? "nope" : "rope",
    num_local_experts: settings.experts ?? 0,
    // dense models have the key too, and nothing reads it
    intermediate_size: settings.moeFfn ?? settings.ffn,
  };
  return { config: configOf(model, KEYS, own), notes: [] };
}
