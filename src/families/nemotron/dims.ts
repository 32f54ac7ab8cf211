/** Widths and constants of a Nemotron model, computed from its settings. */
import type { AttentionDims } from "../parts/attention/dims.ts";
import type { MlpDims } from "../parts/mlp/dims.ts";
import { rotarySpec } from "../parts/rotary.ts";
import type { Settings } from "../structure.ts";

export type NemotronDims = AttentionDims & MlpDims;

export function dims(settings: Settings): NemotronDims {
  const of = (name: string) => Number(settings[name]);
  return {
    hidden: of("hidden"),
    vocab: of("vocab"),
    eps: of("eps"),
    heads: of("heads"),
    kvHeads: of("kvHeads"),
    headDim: of("headDim"),
    q: of("heads") * of("headDim"),
    kv: of("kvHeads") * of("headDim"),
    qkvBias: of("attentionBias"),
    outBias: of("attentionBias"),
    qkNorm: 0,
    scoreScale: 1 / Math.sqrt(of("headDim")),
    window: 0,
    rotary: rotarySpec(settings),
    ffn: of("ffn"),
    mlpBias: of("mlpBias"),
  };
}
