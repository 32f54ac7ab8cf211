/** Calibrated scales: the options that ask for them, and the values that a forward pass gave. */

/** How the largest magnitude that a scale covers follows from the activations. */
export const CALIBRATION_RULES = ["amax", "percentile", "mse"] as const;
export type CalibrationRule = (typeof CALIBRATION_RULES)[number];

/** Options of a conversion that writes scales of activations. */
export interface CalibrationOptions {
  /**
   * write static scales of activations, from a forward pass of the source over the text or the token ids in this file; true:
   * over a bundled text. The plan then reads the weights once
   */
  readonly calibrate?: true | string;
  /** how a scale follows from the activations; default "amax" */
  readonly calibrateRule?: CalibrationRule;
  /** also write scales for a KV cache of this type; needs `calibrate` */
  readonly kvCache?: "fp8";
}

/** What was calibrated, as a certificate records it. */
export interface CalibrationRecord {
  /** "FILE": a file of the user */
  readonly prompt: "bundled" | "FILE";
  readonly tokens: number;
  /** SHA-256 of the token ids, each as a little-endian 64-bit integer */
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
