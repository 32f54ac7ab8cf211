/** The forward pass of a Nemotron model. `hf/native.ts` says which stored rows produce which stream. */
import type { Forward, Stage } from "../forward.ts";
import { attentionBlocks, attentionStages, attentionStreams } from "../parts/attention/stages.ts";
import { mlpStreams, squaredReluMlpStages } from "../parts/mlp/stages.ts";
import { commonStreams, kernelStage, linear } from "../parts/stages.ts";
import type { NemotronDims } from "./dims.ts";
import { gguf } from "./gguf/native.ts";
import { hf } from "./hf/native.ts";
import { natives as megatron } from "./megatron-native.ts";

/** LayerNorm with a bias, over the width of the residual stream. The stored gain is the true gain minus 1. */
const layerNorm: Stage<NemotronDims> = {
  ...kernelStage("layerNorm", "u", ["residual"], ["gain", "shift"], (d: NemotronDims, tokens) => ({
    ...{ tokens, width: d.hidden, eps: d.eps, zeroCentered: true },
  })),
  needs: { gain: ["residual"] },
};

export const forward: Forward<NemotronDims> = {
  streams: (d) => ({ ...commonStreams(d), ...attentionStreams(d), ...mlpStreams(d) }),
  experts: () => 0,
  blocks: attentionBlocks,
  dispatched: [],
  block: (kind, d) =>
    kind === "mlp" ? squaredReluMlpStages(d, layerNorm) : attentionStages(d, false, layerNorm),
  head: [layerNorm, linear("u", "logits")],
  natives: [hf, ...megatron, gguf],
};
