/** Widths and constants of a mixture of experts of the Mixtral kind, computed from its settings. */
import { IsologitError } from "../../core/errors.ts";
import type { AttentionDims } from "../parts/attention/dims.ts";
import type { MlpDims } from "../parts/mlp/dims.ts";
import type { MoeDims } from "../parts/moe/dims.ts";
import { rotarySpec } from "../parts/rotary.ts";
import type { Settings } from "../structure.ts";

/** A width is 0 where no layer of the model uses it. */
export interface MixtralDims extends AttentionDims, MlpDims, MoeDims {
  /** 1: the token table is the head */
  readonly tied: number;
}

/** @throws CONFIG_INVALID where a token cannot choose as many experts as the settings ask */
export function dims(settings: Settings): MixtralDims {
  const of = (name: string) => Number(settings[name] ?? 0);
  if (of("topK") > of("experts"))
    throw new IsologitError(
      "CONFIG_INVALID",
      `a token cannot choose ${of("topK")} of ${of("experts")} experts`,
    );
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
    qkNorm: of("qkNorm"),
    scoreScale: 1 / Math.sqrt(of("headDim")),
    window: of("window"),
    rotary: rotarySpec(settings),
    ffn: of("ffn"),
    mlpBias: 0,
    experts: of("experts"),
    topK: of("topK"),
    moeFfn: of("moeFfn"),
    routeNormalise: of("routeNormalise"),
    tied: of("tied"),
  };
}
