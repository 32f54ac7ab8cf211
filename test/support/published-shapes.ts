/** Nemotron-H models of published shapes, known from their config.json alone. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { families } from "../../src/families/index.ts";
import type { RecognisedModel } from "../../src/families/model.ts";
import { modelOf } from "../../src/families/recognise.ts";
import { golden } from "./goldens.ts";
import { memoryStore } from "./memory-store.ts";

const LARGE = { hidden_size: 8192, num_attention_heads: 64, mamba_num_heads: 256, ssm_state_size: 256 };

/** Values of config.json that are not those of every model. */
export const PUBLISHED = {
  "4B": {
    hybrid_override_pattern: "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    ...{ hidden_size: 3072, intermediate_size: 12288, num_attention_heads: 32, mamba_num_heads: 112 },
    ssm_state_size: 128,
  },
  "8B": {
    hybrid_override_pattern: "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    ...{ hidden_size: 4096, intermediate_size: 21504, num_attention_heads: 32, mamba_num_heads: 128 },
    ssm_state_size: 128,
  },
  "47B": {
    hybrid_override_pattern:
      "M-M-M-M-M-M-M-M-M*-M-M-M-M-M-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-M-M---MM---M-M*-M-M-M-M-M-",
    ...{ ...LARGE, intermediate_size: 30720 },
  },
  "56B": {
    hybrid_override_pattern: `M-M-M-M*-${"M-M-M-M-M*-".repeat(9)}M-M-M-M-M-`,
    ...{ ...LARGE, intermediate_size: 32768 },
  },
};

/** The model that a published config describes. No weight exists. */
export function publishedModel(name: keyof typeof PUBLISHED): RecognisedModel {
  const tiny = JSON.parse(readFileSync(join(golden("tiny"), "config.json"), "utf8"));
  const shape = PUBLISHED[name];
  const config = {
    ...tiny,
    ...{ vocab_size: 131072, n_groups: 8, mamba_head_dim: 64, num_key_value_heads: 8 },
    ...{ attention_head_dim: 128, head_dim: 128, conv_kernel: 4 },
    ...{ ...shape, num_hidden_layers: shape.hybrid_override_pattern.length },
  };
  const checkpoint = {
    ...{ format: "hf", dialect: "hf", config, tensors: [], objects: [], sidecars: [], weightFiles: [] },
    ...{ recasts: [], store: memoryStore("memory", new Map()) },
  };
  return modelOf(checkpoint, families);
}
