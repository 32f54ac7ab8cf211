import { describe, expect, it } from "vitest";
import { compressedTensors } from "../../src/quantization/compressed-tensors.ts";
import { QUANTIZED } from "../support/quantized.ts";

describe("quantization_config", () => {
  const cast = ["a.mixer.up_proj.weight", "a.mixer.down_proj.weight"];
  const kept = ["lm_head.weight", "b.mixer.q_proj.weight", "b.mixer.k_proj.weight", "b.mixer.q_proj.weight"];

  it("is what compressed-tensors writes for FP8 weights with dynamic activations", () => {
    expect(compressedTensors.describe({ ...QUANTIZED, cast, kept })).toEqual({
      warnings: [],
      files: [],
      list: ["lm_head", "b.mixer.q_proj", "b.mixer.k_proj"],
      config: {
        quant_method: "compressed-tensors",
        format: "float-quantized",
        quantization_status: "compressed",
        ignore: ["lm_head", "b.mixer.q_proj", "b.mixer.k_proj"],
        kv_cache_scheme: null,
        config_groups: {
          group_0: {
            targets: ["Linear"],
            weights: { num_bits: 8, type: "float", symmetric: true, strategy: "tensor", dynamic: false },
            input_activations: {
              num_bits: 8,
              type: "float",
              symmetric: true,
              strategy: "token",
              dynamic: true,
            },
          },
        },
      },
    });
  });

  it("claims no method for E5M2: Transformers loads codes as weights under a method that it does not know", () => {
    const { config, warnings } = compressedTensors.describe({ ...QUANTIZED, cast, kept, dtype: "F8_E5M2" });
    expect(config).not.toHaveProperty("quant_method");
    expect(warnings).toEqual([expect.stringContaining("no engine reads E5M2")]);
  });

  it("warns where engines fuse what is cast with what is not", () => {
    const { warnings } = compressedTensors.describe({
      ...QUANTIZED,
      cast: ["b.mixer.v_proj.weight", "c.mixer.experts.0.up_proj.weight", "d.mixer.experts.0.up_proj.weight"],
      kept: [...kept, "c.mixer.experts.1.up_proj.weight", "e.mixer.experts.0.up_proj.weight"],
    });
    const experts = "routed experts are FP8"; // stacked by Transformers 5, which leaves their scales unread
    expect(warnings.map((warning) => warning.split(":")[0])).toEqual(["b.mixer", "c.mixer.experts", experts]);
  });
});
