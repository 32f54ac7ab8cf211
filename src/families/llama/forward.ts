/** The forward pass of a dense model of the Llama kind. `hf/native.ts` says which stored rows produce which stream. */
import type { Forward } from "../forward.ts";
import { attentionBlocks, attentionStages, attentionStreams } from "../parts/attention/stages.ts";
import { gatedMlpStages, mlpStreams } from "../parts/mlp/stages.ts";
import { commonStreams, linear, norm } from "../parts/stages.ts";
import type { LlamaDims } from "./dims.ts";
import { gguf } from "./gguf/native.ts";
import { hf } from "./hf/native.ts";
import { natives as megatron } from "./megatron-native.ts";

export const forward: Forward<LlamaDims> = {
  streams: (d) => ({ ...commonStreams(d), ...attentionStreams(d), ...mlpStreams(d) }),
  experts: () => 0,
  blocks: attentionBlocks,
  dispatched: [],
  block: (kind, d) => (kind === "mlp" ? gatedMlpStages(d) : attentionStages(d, kind === "sliding_attention")),
  head: [norm("u", "gain"), linear("u", "logits")],
  natives: [hf, ...megatron, gguf],
};
