/** Writes config.json for a model from a GGUF, as the published releases spell it. */
import { configOf } from "../../parts/hf/config.ts";
import { expandOf, type HfModel, HYBRID_KEYS, hybridConstants } from "../../parts/hybrid/write.ts";

export function writeConfig(model: HfModel) {
  const { settings, passthrough } = model;
  const mixers = [...String(settings.pattern)].filter((letter) => letter !== "-");
  const own = {
    ...{ architectures: ["BambaForCausalLM"], model_type: "bamba" },
    ...{ ...hybridConstants(passthrough), ...expandOf(settings) },
    attn_layer_indices: mixers.flatMap((letter, block) => (letter === "*" ? [block] : [])),
    attn_rotary_emb: settings.rotary,
  };
  return { config: configOf(model, { ...HYBRID_KEYS, mlpBias: "mlp_bias" }, own), notes: [] };
}
