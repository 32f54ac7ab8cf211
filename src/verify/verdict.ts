/** What reports share: which verdict is the worse, where a role lies in execution, and what the place is called. */

import type { Matched, Role } from "../families/model.ts";
import type { VerifyReport } from "./report.ts";

export type Verdict = "same" | "within" | "different" | "unproven";

const SEVERITY: readonly Verdict[] = ["same", "within", "unproven", "different"];

export function worseVerdict(a: Verdict, b: Verdict): Verdict {
  return SEVERITY.indexOf(a) >= SEVERITY.indexOf(b) ? a : b;
}

/** Good enough to be certified, signed, and let appear. */
export function isProven(verdict: Verdict): verdict is "same" | "within" {
  return verdict === "same" || verdict === "within";
}

/** -1 the embedding, the layers, then the head, then prediction layers. */
export function executionDepth(role: Role | null, layers: number): number {
  if (role === null) return layers;
  const { layer, spec } = role;
  if (layer === null) return spec.kind === "embedding" ? -1 : layers;
  return layer.stack === "main" ? layer.index : layers + 1 + layer.index;
}

export function kindOf(role: Role | null): string {
  return role?.layer?.kind ?? (role?.spec.kind === "embedding" ? "embedding" : "head");
}

/** A layer at which hidden states part, where nothing blames a tensor. */
export function divergenceFrom(layer: number | null, { layers }: Matched): VerifyReport["firstDivergence"] {
  if (layer === null) return null;
  const found = layers.find(({ stack, index }) => stack === "main" && index === layer);
  return { layer, kind: found?.kind ?? (layer < 0 ? "embedding" : "head"), tensors: [] };
}
