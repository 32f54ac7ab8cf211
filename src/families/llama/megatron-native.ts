/** How Megatron's dialects run: which stored rows produce which stream. */
import { gptNatives, gptUses } from "../parts/gpt/native.ts";
import type { LlamaDims } from "./dims.ts";
import { ATTENTION } from "./settings.ts";

export const natives = gptNatives(
  gptUses<LlamaDims>({ attention: ATTENTION, layerNorm: false, gated: true }),
);
