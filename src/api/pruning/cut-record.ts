/** What a certificate says of a cut: what stayed, the options that chose it, and the damage. */
import type { CutRecord } from "../../certificate/certificate.ts";
import type { Cut } from "../../pruning/cut.ts";
import type { Damage } from "../../pruning/damage.ts";
import type { ShapeOptions } from "../../pruning/options.ts";
import type { IterativeDepth } from "../../pruning/search/iterative-depth.ts";

interface CertifiedCut {
  readonly cut: Cut;
  /** null: layers were chosen at once */
  readonly depth: IterativeDepth | null;
  readonly options: Pick<ShapeOptions, "score" | "layerScore">;
}

export function cutRecord({ cut, depth, options }: CertifiedCut, damage: Damage | null): CutRecord {
  const lists = (kept: Cut["ffn"]) =>
    Object.fromEntries([...kept].map(([layer, units]) => [String(layer), units]));
  const { score = "contribution", layerScore = "mse" } = options;
  return {
    layers: cut.layers,
    ...{ ffn: lists(cut.ffn), mambaHeads: lists(cut.mambaHeads), heads: lists(cut.heads) },
    hidden: cut.hidden ?? null,
    ...(cut.rescaledGains === true && { rescaledGains: true as const }),
    ...{ score, layerScore },
    ...(depth !== null && { dropOrder: depth.rounds.map(({ layer }) => layer) }),
    damage: damage === null ? null : (damageText(damage) as CutRecord["damage"]), // the fields of the damage
  };
}

/** Numbers that JSON cannot hold become texts. */
function damageText(damage: Damage): Readonly<Record<string, number | string>> {
  const entries = Object.entries(damage) as [string, number][]; // every field is a number
  return Object.fromEntries(
    entries.map(([name, value]) => [name, Number.isFinite(value) ? value : String(value)]),
  );
}
