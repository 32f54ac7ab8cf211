/** Verdicts and their order; the position of a role in the order of execution, and the name of that position. */

import type { MatchedModel, Role } from "../families/model.ts";
import type { Verdict, VerifyReport } from "./report.ts";

const SEVERITY: readonly Verdict[] = ["same", "within", "unproven", "different"];

/** The worse of two verdicts. */
export function worseVerdict(a: Verdict, b: Verdict): Verdict {
  return SEVERITY.indexOf(a) >= SEVERITY.indexOf(b) ? a : b;
}

/** Whether a conversion with this verdict may be certified, signed and published. */
export function isProven(verdict: Verdict): verdict is "same" | "within" {
  return verdict === "same" || verdict === "within";
}

/**
 * Position of a role in the order of execution: -1 the embedding, then the main layers, the head, and prediction layers.
 *
 * @param layers number of main layers
 */
export function executionDepth(role: Role | null, layers: number): number {
  if (role === null) return layers;
  const { layer, spec } = role;
  if (layer === null) return spec.kind === "embedding" ? -1 : layers;
  return layer.stack === "main" ? layer.index : layers + 1 + layer.index;
}

/** The kind of layer that a role belongs to, "embedding" or "head". */
export function kindOf(role: Role | null): string {
  return role?.layer?.kind ?? (role?.spec.kind === "embedding" ? "embedding" : "head");
}

/** The first divergence where hidden states differ from a layer on and no tensor is known to be the cause. */
export function divergenceFrom(
  layer: number | null,
  { layers }: MatchedModel,
): VerifyReport["firstDivergence"] {
  if (layer === null) return null;
  const found = layers.find(({ stack, index }) => stack === "main" && index === layer);
  return { layer, kind: found?.kind ?? (layer < 0 ? "embedding" : "head"), tensors: [] };
}
