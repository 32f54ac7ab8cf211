/** The forward pass of a Bamba model. `native.ts` of each dialect says which stored rows produce which stream. */
import type { Forward } from "../forward.ts";
import { attentionBlocks, attentionStages, attentionStreams } from "../parts/attention/stages.ts";
import type { HybridDims } from "../parts/hybrid/dims.ts";
import { mambaBlocks, mambaStages, mambaStreams } from "../parts/mamba/stages.ts";
import { gatedMlpStages, mlpStreams } from "../parts/mlp/stages.ts";
import { commonStreams, linear, norm } from "../parts/stages.ts";
import { gguf, wholeHeadPairs } from "./gguf/native.ts";
import { hf } from "./hf/native.ts";

export const forward: Forward<HybridDims> = {
  streams: (d) => ({ ...commonStreams(d), ...mambaStreams(d), ...attentionStreams(d), ...mlpStreams(d) }),
  experts: () => 0,
  blocks: (d) => ({ ...mambaBlocks(d), ...attentionBlocks(d) }),
  dispatched: [],
  block(kind, d) {
    if (kind === "mamba") return [norm("u", "gain"), ...mambaStages(d)];
    return kind === "attention" ? attentionStages(d, false) : gatedMlpStages(d);
  },
  head: [norm("u", "gain"), linear("u", "logits")],
  natives: [hf, gguf, wholeHeadPairs],
};
