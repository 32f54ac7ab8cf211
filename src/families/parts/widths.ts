/** Widths of attention and MLP, computed from settings. */
import type { Settings } from "../structure.ts";
import type { AttentionDims } from "./attention/dims.ts";
import type { MlpDims } from "./mlp/dims.ts";
import { rotarySpec } from "./rotary.ts";

/** A setting that is a number; 0 where it is absent. */
export const numberIn = (settings: Settings, name: string): number =>
  typeof settings[name] === "number" ? settings[name] : 0;

/** 1 where a setting is true, else 0. */
export const flagIn = (settings: Settings, name: string): number => (settings[name] === true ? 1 : 0);

/**
 * The widths that the settings of every model of attention and MLPs describe. A family whose settings name its biases in
 * another way replaces them.
 */
export function blockWidths(settings: Settings): AttentionDims & MlpDims {
  const of = (name: string) => numberIn(settings, name);
  const [heads, kvHeads, headDim] = [of("heads"), of("kvHeads"), of("headDim")];
  const attentionBias = flagIn(settings, "attentionBias");
  return {
    ...{ hidden: of("hidden"), vocab: of("vocab"), eps: of("eps"), ffn: of("ffn") },
    ...{ heads, kvHeads, headDim, q: heads * headDim, kv: kvHeads * headDim },
    ...{ qkvBias: attentionBias, outBias: attentionBias, mlpBias: flagIn(settings, "mlpBias") },
    qkNorm: flagIn(settings, "qkNorm"),
    scoreScale: 1 / Math.sqrt(headDim),
    window: of("window"),
    rotary: settings.rotary === undefined ? null : rotarySpec(settings),
  };
}
