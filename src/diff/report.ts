/** The report of `diff`. */

import type { PluginsReport } from "../plugins/plugin.ts";

/** Differences of two checkpoints, role by role. */
export interface DiffReport extends PluginsReport {
  /** no tensor, setting or side file differs */
  readonly equal: boolean;
  readonly tensors: readonly DiffedTensor[];
  /** settings of the model that differ, and keys of the config where both sides have one dialect; of two GGUF their keys */
  readonly config: readonly { readonly key: string; readonly a: unknown; readonly b: unknown }[];
  readonly sidecars: readonly DiffedSidecar[];
}

export interface DiffedTensor {
  /** of two GGUF: the name of the stored tensor */
  readonly role: string;
  readonly layer: number | null;
  /** stored tensor and dtype of each side; null if the side has no tensor */
  readonly a: string | null;
  readonly b: string | null;
  readonly equal: boolean;
  /** distance of the real values, with scales applied; null if they cannot be compared */
  readonly maxAbs: number | null;
  readonly relL2: number | null;
  /** largest distance in codes of the dtype, if both sides have the same dtype and scale */
  readonly ulp: number | null;
  /** reason for an incomplete comparison */
  readonly error?: string;
}

/** A file that differs. `lines`: the lines between the common start and the common end of a text. */
export interface DiffedSidecar {
  readonly path: string;
  /** SHA-256; null if the side has no such file */
  readonly a: string | null;
  readonly b: string | null;
  readonly lines?: { readonly from: number; readonly a: readonly string[]; readonly b: readonly string[] };
}
