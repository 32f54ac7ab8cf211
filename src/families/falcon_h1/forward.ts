/**
 * The forward pass of a Falcon-H1 model: attention and Mamba read one normed stream, and their outputs are added.
 * `native.ts` of each dialect says which stored rows produce which stream.
 * @see Falcon-H1, arXiv 2507.22448
 */
import type { Forward, Stage } from "../forward.ts";
import { attentionBlocks, attentionMixer, attentionStreams } from "../parts/attention/stages.ts";
import { mambaBlocks, mambaStages, mambaStreams } from "../parts/mamba/stages.ts";
import { gatedMlpStages, mlpStreams } from "../parts/mlp/stages.ts";
import { commonStreams, kernelStage, linear, multiplier, norm } from "../parts/stages.ts";
import type { FalconH1Dims } from "./dims.ts";
import { gguf } from "./gguf/native.ts";
import { hf } from "./hf/native.ts";
import { megatron } from "./megatron/native.ts";

/** A stream of the hidden width times a number: [T, hidden]. */
const multiplied = (to: string, from: string, factor: (d: FalconH1Dims) => number): Stage<FalconH1Dims> =>
  multiplier(to, from, (d) => d.hidden, factor);

const hybrid = (d: FalconH1Dims): readonly Stage<FalconH1Dims>[] => [
  norm("u", "gain"), // [T, hidden]
  multiplied("ssm.u", "u", (d) => d.ssmInMultiplier),
  ...mambaStages(d, { from: "ssm.u", to: "ssm.out", factors: (d) => d.ssmMultipliers }),
  multiplied("ssm.scaled", "ssm.out", (d) => d.ssmOutMultiplier),
  multiplied("attn.u", "u", (d) => d.attentionInMultiplier),
  ...attentionMixer(d, { from: "attn.u", to: "attn.out", keyFactor: (d) => d.keyMultiplier }),
  multiplied("attn.scaled", "attn.out", (d) => d.attentionOutMultiplier),
  kernelStage("add", "out", ["ssm.scaled", "attn.scaled"], [], (d, tokens) => ({ count: tokens * d.hidden })),
];

const mlp = (d: FalconH1Dims): readonly Stage<FalconH1Dims>[] => [
  ...gatedMlpStages(d, { to: "down", gateFactor: (d) => d.mlpMultipliers[0]! }),
  multiplied("out", "down", (d) => d.mlpMultipliers[1]!),
];

/** Streams of the hidden width, beside those of every family. */
const BRANCHES = [
  ...["ssm.u", "ssm.out.product", "ssm.out", "ssm.scaled"],
  ...["attn.u", "attn.out.product", "attn.out", "attn.scaled"],
  ...["down.product", "down"],
];

export const forward: Forward<FalconH1Dims> = {
  streams: (d) => ({
    ...{ ...commonStreams(d), ...mambaStreams(d), ...attentionStreams(d), ...mlpStreams(d) },
    ...Object.fromEntries(BRANCHES.map((name) => [name, d.hidden])),
  }),
  experts: () => 0,
  blocks: (d) => ({ ...mambaBlocks(d), ...attentionBlocks(d) }),
  dispatched: [],
  entry: [multiplied("out", "residual", (d) => d.embeddingMultiplier)],
  block: (kind, d) => (kind === "mlp" ? mlp(d) : hybrid(d)),
  head: [norm("u", "gain"), linear("u", "logits")],
  logitsFactor: (d) => d.lmHeadMultiplier,
  natives: [hf, megatron, gguf],
};
