/** Widths of models with attention, Mamba-2 and gated MLPs. */

import type { Settings } from "../../structure.ts";
import type { AttentionDims } from "../attention/dims.ts";
import { type MambaDims, mambaWidths } from "../mamba/dims.ts";
import type { MlpDims } from "../mlp/dims.ts";
import { rotarySpec } from "../rotary.ts";

export interface HybridDims extends AttentionDims, MambaDims, MlpDims {
  /** 1: the token table is the head */
  readonly tied: number;
}

/** The widths that settings describe, with one norm over the whole inner width of a Mamba mixer, after the gate. */
export function hybridDims(settings: Settings): HybridDims {
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
    qkvBias: flag("attentionBias"),
    outBias: flag("attentionBias"),
    qkNorm: 0,
    scoreScale: 1 / Math.sqrt(of("headDim")),
    window: 0,
    rotary: settings.rotary === undefined ? null : rotarySpec(settings),
    ...mambaWidths(settings),
    ...{ normGroups: 1, normFirst: 0 },
    inBias: flag("mambaProjBias"),
    ssmOutBias: flag("mambaProjBias"),
    ffn: of("ffn"),
    mlpBias: flag("mlpBias"),
    tied: flag("tied"),
  };
}
