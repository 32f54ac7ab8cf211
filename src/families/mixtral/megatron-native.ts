/** How Megatron's dialects run: which stored rows produce which stream. */
import { gptExpertUses, gptNatives, gptUses } from "../parts/gpt/native.ts";
import type { MixtralDims } from "./dims.ts";
import { ATTENTION } from "./settings.ts";

const uses = gptUses<MixtralDims>({ attention: ATTENTION, layerNorm: false, gated: true });
const experts = gptExpertUses<MixtralDims>();

export const natives = gptNatives({ ...uses, moe: experts.whole }, { ...uses, moe: experts.rank });
