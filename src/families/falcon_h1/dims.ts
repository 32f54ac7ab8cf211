/** Widths and multipliers of a Falcon-H1 model, computed from its settings. */
import { type HybridDims, hybridDims } from "../parts/hybrid/dims.ts";
import type { Settings } from "../structure.ts";

/** The multipliers, as the config names them. */
export interface FalconH1Dims extends HybridDims {
  readonly embeddingMultiplier: number;
  readonly lmHeadMultiplier: number;
  readonly attentionInMultiplier: number;
  readonly attentionOutMultiplier: number;
  readonly keyMultiplier: number;
  readonly ssmInMultiplier: number;
  readonly ssmOutMultiplier: number;
  /** of z, x, B, C and dt */
  readonly ssmMultipliers: readonly number[];
  /** of the gate before its activation, and of the output */
  readonly mlpMultipliers: readonly number[];
}

export function dims(settings: Settings): FalconH1Dims {
  const of = (name: string) => Number(settings[name]);
  const list = (name: string) => settings[name] as readonly number[]; // the reader writes these settings as lists
  const hybrid = hybridDims(settings);
  return {
    ...hybrid,
    normGroups: settings.mambaRmsNorm === true ? hybrid.groups : 0,
    normFirst: settings.normBeforeGate === true ? 1 : 0,
    ssmOutBias: settings.projectorsBias === true ? 1 : 0,
    embeddingMultiplier: of("embeddingMultiplier"),
    lmHeadMultiplier: of("lmHeadMultiplier"),
    attentionInMultiplier: of("attentionInMultiplier"),
    attentionOutMultiplier: of("attentionOutMultiplier"),
    keyMultiplier: of("keyMultiplier"),
    ssmInMultiplier: of("ssmInMultiplier"),
    ssmOutMultiplier: of("ssmOutMultiplier"),
    ssmMultipliers: list("ssmMultipliers"),
    mlpMultipliers: list("mlpMultipliers"),
  };
}
