import { IsologitError } from "../../../core/errors.ts";
import type { Settings } from "../../structure.ts";
import type { StreamDims } from "../stages.ts";
import { numberIn } from "../widths.ts";

/** Widths of a layer of gated experts with a softmax router. */
export interface MoeDims extends StreamDims {
  /** 0: no layer of the model has experts */
  readonly experts: number;
  /** experts that a token chooses */
  readonly topK: number;
  /** inner width of an expert */
  readonly moeFfn: number;
  /** 1: the weights are a softmax over the chosen experts; 0: over all of them */
  readonly routeNormalise: number;
}

/** @throws CONFIG_INVALID where a token cannot choose as many experts as the settings ask */
export function expertWidths(settings: Settings): Pick<MoeDims, "experts" | "topK" | "moeFfn"> {
  const of = (name: string) => numberIn(settings, name);
  const [experts, topK] = [of("experts"), of("topK")];
  if (topK <= experts) return { experts, topK, moeFfn: of("moeFfn") };
  throw new IsologitError("CONFIG_INVALID", `a token cannot choose ${topK} of ${experts} experts`);
}
