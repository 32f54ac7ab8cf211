/** The forward pass of a mixture of experts of the Mixtral kind. `hf/native.ts` says which stored rows produce which stream. */
import type { Forward } from "../forward.ts";
import { attentionBlocks, attentionStages, attentionStreams } from "../parts/attention/stages.ts";
import { gatedMlpStages, mlpStreams } from "../parts/mlp/stages.ts";
import { MOE_DISPATCHED, moeStages, moeStreams } from "../parts/moe/stages.ts";
import { commonStreams, linear, norm } from "../parts/stages.ts";
import type { MixtralDims } from "./dims.ts";
import { gguf } from "./gguf/native.ts";
import { hf } from "./hf/native.ts";
import { natives as megatron } from "./megatron-native.ts";

export const forward: Forward<MixtralDims> = {
  streams: (d) => ({ ...commonStreams(d), ...attentionStreams(d), ...mlpStreams(d), ...moeStreams(d) }),
  experts: (d) => d.experts,
  blocks: attentionBlocks,
  dispatched: MOE_DISPATCHED,
  block: (kind, d) => {
    if (kind === "moe") return moeStages();
    return kind === "mlp" ? gatedMlpStages(d) : attentionStages(d, kind === "sliding_attention");
  },
  head: [norm("u", "gain"), linear("u", "logits")],
  natives: [hf, ...megatron, gguf],
};
