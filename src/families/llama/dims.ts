/** Widths and constants of a dense model of the Llama kind, computed from its settings. */
import type { AttentionDims } from "../parts/attention/dims.ts";
import type { MlpDims } from "../parts/mlp/dims.ts";
import { rotarySpec } from "../parts/rotary.ts";
import type { Settings } from "../structure.ts";

export interface LlamaDims extends AttentionDims, MlpDims {
  /** 1: the token table is the head */
  readonly tied: number;
}

export function dims(settings: Settings): LlamaDims {
  const of = (name: string) => (typeof settings[name] === "number" ? settings[name] : 0);
  const flag = (name: string) => (settings[name] === true ? 1 : 0);
  return {
    hidden: of("hidden"),
    vocab: of("vocab"),
    eps: of("eps"),
    heads: of("heads"),
    kvHeads: of("kvHeads"),
    headDim: of("headDim"),
    q: of("heads") * of("headDim"),
    kv: of("kvHeads") * of("headDim"),
    qkvBias: flag("qkvBias"),
    outBias: flag("outBias"),
    qkNorm: flag("qkNorm"),
    scoreScale: 1 / Math.sqrt(of("headDim")),
    window: of("window"),
    rotary: rotarySpec(settings),
    ffn: of("ffn"),
    mlpBias: flag("mlpBias"),
    tied: flag("tied"),
  };
}
