/** TensorRT-LLM. Source: `QuantConfig` and its loaders of hf_quant_config.json and config.json. */
import type { Engine, EngineLimit } from "./engine.ts";
import type { QuantizedFolder } from "./folder.ts";
import { headLimits } from "./limits.ts";
import { patternOfAncestor } from "./matching.ts";

const RULE = "takes an entry for a pattern of the module or of a module that contains it (QuantConfig)";

const fp8 = {
  lists: ["ignored_layers", "modules_to_not_convert"],
  findEntry: patternOfAncestor,
  rule: RULE,
  head: false,
} as const;

export const tensorRtLlm: Engine = {
  id: "trtllm",
  name: "TensorRT-LLM",
  files: ["hf_quant_config.json", "config.json"],
  methods: {
    "compressed-tensors": { lists: ["ignore"], findEntry: patternOfAncestor, rule: RULE, head: false },
    modelopt: { lists: ["ignore"], findEntry: patternOfAncestor, rule: RULE, head: true },
    fp8,
  },
  limits: (folder) => [
    ...headLimits(folder, false, {
      severity: "warning",
      message:
        "reads a quantised head in new versions alone; older versions take its codes for values (https://github.com/NVIDIA/TensorRT-LLM/pull/17728)",
    }),
    ...groupNameLimits(folder),
  ],
};

/** Older versions read the group of this name alone. */
const GROUP = "group_0";

function groupNameLimits({ scheme, record }: QuantizedFolder): readonly EngineLimit[] {
  const names = Object.keys((record.config_groups as object | undefined) ?? {});
  if (scheme.method !== "compressed-tensors" || names.includes(GROUP)) return [];
  const message = `reads no group but ${GROUP} in older versions, and here is ${names.join(", ")} (https://github.com/NVIDIA/TensorRT-LLM/pull/15415)`;
  return [{ rule: "engine-group-name", severity: "asked", loads: true, message, tensor: null }];
}
