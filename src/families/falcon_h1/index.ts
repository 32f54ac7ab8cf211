/** Falcon-H1: blocks with attention and Mamba-2 side by side, then a gated MLP, and twelve multipliers. */
import type { Family } from "../family.ts";
import { recipes } from "../parts/hybrid/recipes.ts";
import { dims, type FalconH1Dims } from "./dims.ts";
import { forward } from "./forward.ts";
import { isGguf } from "./gguf/config.ts";
import { gguf } from "./gguf/dialect.ts";
import { hf } from "./hf/dialect.ts";
import { megatron } from "./megatron/dialect.ts";
import { isFalconRecord } from "./megatron/read.ts";
import { ONLY_BRIDGE } from "./megatron/write.ts";
import { roles } from "./roles.ts";
import { KINDS, layers } from "./settings.ts";

export const falconH1: Family<FalconH1Dims> = {
  id: "falcon_h1",
  claims: (config) => config.model_type === "falcon_h1" || isFalconRecord(config) || isGguf(config),
  kinds: KINDS,
  pattern: (settings) => String(settings.pattern),
  layers,
  dims,
  roles,
  dialects: [hf, megatron, gguf],
  absentDialects: { "megatron-ranks": ONLY_BRIDGE },
  recipes,
  forward,
};
