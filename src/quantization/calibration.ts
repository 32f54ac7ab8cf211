/** Calibrated scales: the options that ask for them, and the values that a forward pass gave. */
import type { LoadedModel } from "../checkpoint/load.ts";
import { IsologitError } from "../core/errors.ts";

/** How the largest magnitude that a scale covers follows from the activations. */
export const CALIBRATION_RULES = ["amax", "percentile", "mse"] as const;
export type CalibrationRule = (typeof CALIBRATION_RULES)[number];

/** Options of a conversion that writes scales of activations. */
export interface CalibrationOptions {
  /**
   * write static scales of activations, from a forward pass of the source over the prompts in this file: a text with a prompt
   * on each line, JSON lines, or the token ids of one prompt; true: over a bundled text. The plan then reads the weights once
   */
  readonly calibrate?: true | string;
  /** how a scale follows from the activations; default "amax" */
  readonly calibrateRule?: CalibrationRule;
  /** also write scales for a KV cache of this type; needs `calibrate` */
  readonly kvCache?: "fp8";
}

/** In place of the path of a file with a prompt. */
export const CALIBRATION_FILE = "PROMPT";

/** What was calibrated, as a certificate records it. */
export interface CalibrationRecord {
  readonly prompt: "bundled" | typeof CALIBRATION_FILE;
  /** number of prompts in the file; absent for one */
  readonly prompts?: number;
  /** of all prompts */
  readonly tokens: number;
  /** SHA-256 of the token ids, each as a little-endian 64-bit integer, with -1 between two prompts */
  readonly sha256: string;
}

/** Scales of activations, F32. Both maps are by role key. */
export interface Calibration {
  readonly record: CalibrationRecord;
  /** of the rows that a role's matrix multiplies */
  readonly inputs: ReadonlyMap<string, number>;
  /** of the product that the KV cache keeps */
  readonly cached: ReadonlyMap<string, number>;
  readonly warnings: readonly string[];
}

/**
 * Checks options before the forward pass, which takes long.
 *
 * @throws USAGE for options without a meaning
 */
export function refuseCalibration(
  options: CalibrationOptions & { readonly dtype?: string },
  { scales, tensors }: Pick<LoadedModel, "scales" | "tensors">,
): void {
  const { calibrate, calibrateRule, kvCache, dtype = "keep" } = options;
  if (calibrate === undefined) {
    const lone = calibrateRule !== undefined ? "`calibrateRule`" : kvCache !== undefined ? "`kvCache`" : null;
    if (lone !== null) throw new IsologitError("USAGE", `${lone} has no meaning without \`calibrate\``);
    return;
  }
  const keepsFp8 = [...scales.scaleOf.keys()].some((name) => tensors.get(name)?.dtype === "F8_E4M3");
  if (dtype === "fp8-e4m3" || (dtype === "keep" && keepsFp8)) return;
  const message = "`calibrate` writes scales beside E4M3 weights, and the destination has none";
  throw new IsologitError("USAGE", message, {}, { next: "add `dtype` fp8-e4m3, or leave `calibrate` out" });
}
