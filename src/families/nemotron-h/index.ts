import { IsologitError } from "../../core/errors.ts";
import type { Family } from "../family.ts";
import { hasArchitecture } from "../parts/gguf/keys.ts";
import { dims, type NemotronHDims } from "./dims.ts";
import { forward } from "./forward.ts";
import { ARCHITECTURES } from "./gguf/config.ts";
import { gguf } from "./gguf/dialect.ts";
import { hf } from "./hf/dialect.ts";
import { isMegatronConfig } from "./megatron/config.ts";
import { megatron, megatronRanks } from "./megatron/dialect.ts";
import { prunable } from "./prunable.ts";
import { recipes } from "./recipes.ts";
import { roles } from "./roles.ts";
import { KINDS, layers } from "./settings.ts";

export const nemotronH: Family<NemotronHDims> = {
  id: "nemotron-h",
  claims(config) {
    if (config.model_type === "nemotron_h_puzzle") {
      // Its layers have widths of their own (block_configs), so one set of dims cannot describe it.
      throw new IsologitError(
        "UNSUPPORTED",
        "model_type nemotron_h_puzzle is a relative with per-layer widths, which this version does not read",
        { file: "config.json" },
        { next: "inspect one of its .safetensors files by itself: that needs no config" },
      );
    }
    return (
      config.model_type === "nemotron_h" ||
      isMegatronConfig(config) ||
      hasArchitecture(config, Object.values(ARCHITECTURES))
    );
  },
  kinds: KINDS,
  pattern: (settings) => String(settings.pattern),
  layers,
  dims,
  roles,
  dialects: [hf, megatron, megatronRanks, gguf],
  recipes,
  forward,
  prunable,
};
