/**
 * How a GGUF runs: which stored rows produce which stream, and what multiplies the values where they are stored. Written by
 * hand, apart from the rules in `dialect.ts`.
 */
import type { Native, Use } from "../../forward.ts";
import { attentionMixerUses, embeddingUses, headUses } from "../../parts/gguf/attention-native.ts";
import { mambaUses } from "../../parts/gguf/mamba-native.ts";
import { whole } from "../../parts/whole.ts";
import type { FalconH1Dims } from "../dims.ts";

/** By stream: stored rows are multiplied by the factors of the input and of the product, which llama.cpp has no other place for. */
function factorOf(stream: string, d: FalconH1Dims): number {
  const [z, x, B, C, dt] = d.ssmMultipliers as readonly [number, number, number, number, number];
  const [gate, down] = d.mlpMultipliers as readonly [number, number];
  const [attention, ssm] = [d.attentionInMultiplier, d.ssmInMultiplier];
  const factors: Readonly<Record<string, number>> = {
    ...{ vocabulary: d.embeddingMultiplier, logits: d.lmHeadMultiplier },
    ...{ z: ssm * z, x: ssm * x, B: ssm * B, C: ssm * C, dt: ssm * dt, "ssm.out": d.ssmOutMultiplier },
    ...{ q: attention, k: attention * d.keyMultiplier, v: attention, "attn.out": d.attentionOutMultiplier },
    ...{ gate, down },
  };
  return factors[stream] ?? 1;
}

const multiplied = (uses: readonly Use<FalconH1Dims>[]): readonly Use<FalconH1Dims>[] =>
  uses.map((use) => ({
    ...use,
    outputs: (d, at) => use.outputs(d, at).map((rows) => ({ ...rows, times: factorOf(rows.to, d) })),
  }));

export const gguf: Native<FalconH1Dims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: multiplied(embeddingUses()),
    hybrid: multiplied([
      whole("attn_norm.weight", "gain", (d) => d.hidden),
      ...mambaUses<FalconH1Dims>("ssm.out"),
      ...attentionMixerUses<FalconH1Dims>(() => undefined, "attn.out"),
    ]),
    mlp: multiplied([
      whole("ffn_norm", "gain", (d) => d.hidden),
      whole("ffn_gate.weight", "gate", (d) => d.ffn),
      whole("ffn_up.weight", "up", (d) => d.ffn),
      whole("ffn_down.weight", "down", (d) => d.hidden),
    ]),
    head: multiplied(headUses()),
  },
};
