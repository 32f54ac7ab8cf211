/** The forward pass of a Granite 4.0 model. `native.ts` of each dialect says which stored rows produce which stream. */
import type { Forward, Stage } from "../forward.ts";
import { attentionBlocks, attentionMixer, attentionStreams } from "../parts/attention/stages.ts";
import { mambaBlocks, mambaStages, mambaStreams } from "../parts/mamba/stages.ts";
import { gatedMlp, gatedMlpStages, mlpStreams } from "../parts/mlp/stages.ts";
import { MOE_DISPATCHED, moeStages, moeStreams } from "../parts/moe/stages.ts";
import { commonStreams, kernelStage, linear, multiplier, norm } from "../parts/stages.ts";
import type { GraniteDims } from "./dims.ts";
import { gguf } from "./gguf/native.ts";
import { hf } from "./hf/native.ts";

type Stages = readonly Stage<GraniteDims>[];

const hidden = (d: GraniteDims) => d.hidden;

/** The stages of each layer kind, to the stream "branch": [T, hidden]. */
function branch(kind: string, d: GraniteDims): Stages {
  const to = "branch";
  if (kind === "mamba") return [norm("u", "gain"), ...mambaStages(d, { to })];
  if (kind === "attention") return [norm("u", "gain"), ...attentionMixer(d, { to })];
  if (kind === "mlp") return gatedMlpStages(d, { to });
  return [
    ...moeStages<GraniteDims>("routed"),
    ...gatedMlp(d, { to: "shared" }),
    kernelStage("add", to, ["routed", "shared"], [], (d: GraniteDims, tokens) => ({
      count: tokens * d.hidden,
    })),
  ];
}

export const forward: Forward<GraniteDims> = {
  streams: (d) => ({
    ...{
      ...commonStreams(d),
      ...mambaStreams(d),
      ...attentionStreams(d),
      ...mlpStreams(d),
      ...moeStreams(d),
    },
    ...{ "branch.product": d.hidden, branch: d.hidden, routed: d.hidden, shared: d.hidden },
  }),
  experts: (d) => d.experts,
  blocks: (d) => ({ ...mambaBlocks(d), ...attentionBlocks(d) }),
  dispatched: MOE_DISPATCHED,
  entry: [multiplier("out", "residual", hidden, (d) => d.embeddingMultiplier)],
  block: (kind, d) => [...branch(kind, d), multiplier("out", "branch", hidden, (d) => d.residualMultiplier)],
  head: [norm("u", "gain"), linear("u", "logits")],
  logitsFactor: (d) => 1 / d.logitsScaling,
  natives: [hf, gguf],
};
