/** Settings of a Nemotron-H model, its layers, and limits on their number. */
import { type ErrorLocation, IsologitError } from "../../core/errors.ts";
import { refuseExcess as refuseExcessCounts } from "../parts/limits.ts";
import type { Layer, Settings } from "../structure.ts";

export const KINDS = ["mamba", "attention", "mlp", "moe"] as const;

export type NemotronHLayerKind = (typeof KINDS)[number];

export const LETTERS: Readonly<Record<string, NemotronHLayerKind>> = {
  M: "mamba",
  "*": "attention",
  "-": "mlp",
  E: "moe",
};

/** Settings of the forward pass. A setting that no layer of the model uses is absent. */
export interface NemotronHSettings extends Settings {
  readonly pattern: string;
  readonly hidden: number;
  readonly vocab: number;
  readonly eps: number;
  /** eps of the norm inside a Mamba mixer, if it differs */
  readonly mixerEps?: number;
  /** Δ is clamped to these limits after softplus; "Infinity": no upper limit */
  readonly dtMin: number;
  readonly dtMax: number | "Infinity";
}

/** All layers: the main stack, then the layers of the multi-token prediction steps, numbered through all steps. */
export function layers(settings: Settings): readonly Layer[] {
  const predicted = String(settings.mtpPattern ?? "");
  const steps = Number(settings.mtpSteps ?? 0);
  const pattern = String(settings.pattern);
  const after = pattern.length;
  return [
    ...Array.from(pattern, (letter, index): Layer => {
      return { stack: "main", index, kind: kindOf(letter), inner: 0, of: 1 };
    }),
    ...Array.from(predicted.repeat(steps), (letter, index): Layer => {
      const of = predicted.length;
      return { stack: "mtp", index, kind: kindOf(letter), inner: index % of, of, after };
    }),
  ];
}

function kindOf(letter: string): NemotronHLayerKind {
  const kind = LETTERS[letter];
  if (kind === undefined)
    throw new IsologitError("CONFIG_INVALID", `layer letter ${JSON.stringify(letter)} is not one of M * - E`);
  return kind;
}

/** @throws LIMIT_EXCEEDED */
export function refuseExcess(settings: Settings, at: ErrorLocation = {}): void {
  const main = String(settings.pattern).length;
  const layers = main + Number(settings.mtpSteps ?? 0) * String(settings.mtpPattern ?? "").length;
  refuseExcessCounts(layers, main * Number(settings.experts ?? 0), at);
}
