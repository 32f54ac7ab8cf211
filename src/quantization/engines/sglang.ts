/** SGLang. Sources: `modelopt_quant.py`, `fp8.py`, `compressed_tensors.py`. */
import type { Engine } from "./engine.ts";
import { headLimits, scaleNameLimits } from "./limits.ts";
import { equalOrExpression, partOfPath, substring } from "./matching.ts";

const fp8 = {
  lists: ["ignored_layers", "modules_to_not_convert"],
  findEntry: partOfPath,
  rule: "takes an entry for whole words of the name (is_layer_skipped; https://github.com/sgl-project/sglang/pull/23467)",
  head: false,
} as const;

export const sglang: Engine = {
  id: "sglang",
  name: "SGLang",
  files: ["config.json", "hf_quant_config.json"],
  methods: {
    "compressed-tensors": {
      lists: ["ignore"],
      findEntry: equalOrExpression,
      rule: "compares whole names, and tries `re:` from the start (compressed_tensors/utils.py)",
      head: false,
    },
    modelopt: {
      lists: ["ignore"],
      findEntry: substring,
      rule: "takes an entry for a part of the name, and `*` as a plain character (modelopt_quant.py, in the version that was read)",
      head: true,
      varies: true,
    },
    fp8,
    mxfp8: fp8,
  },
  limits: (folder) => [
    ...headLimits(folder, false, {
      severity: "warning",
      message:
        "quantises a head only where a target names it: it takes the codes of the head for values (https://github.com/sgl-project/sglang/pull/35228)",
    }).filter(() => folder.scheme.method !== "modelopt"),
    ...scaleNameLimits(folder, (name) => name.endsWith("_scale"), {
      message:
        "reads one scale a tensor as weight_scale, not weight_scale_inv; Transformers reads weight_scale_inv (https://github.com/sgl-project/sglang/pull/30234)",
    }),
  ],
};
