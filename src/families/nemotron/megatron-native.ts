/** How Megatron's dialects run: which stored rows produce which stream. */
import { gptNatives, gptUses } from "../parts/gpt/native.ts";
import type { NemotronDims } from "./dims.ts";

export const natives = gptNatives(
  gptUses<NemotronDims>({ attention: ["attention"], layerNorm: true, gated: false }),
);
