/** TODO */

/** Two checkpoints role by role, whatever their formats and dialects. */
export interface DiffReport {
  /** no tensor, setting or side file differs */
  readonly equal: boolean;
  readonly tensors: readonly DiffedTensor[];
  /** settings of the model that differ, and keys of the config where both sides have one dialect */
  readonly config: readonly { readonly key: string; readonly a: unknown; readonly b: unknown }[];
  readonly sidecars: readonly DiffedSidecar[];
}

export interface DiffedTensor {
  readonly role: string;
  readonly layer: number | null;
  /** stored tensor and dtype of either side; null where it has none */
  readonly a: string | null;
  readonly b: string | null;
  readonly equal: boolean;
  /** of the real values, scales applied; null where they cannot be compared */
  readonly maxAbs: number | null;
  readonly relL2: number | null;
  /** largest distance in codes of the dtype, where both sides have the same dtype and scale */
  readonly ulp: number | null;
  /** why it could not be compared to its end */
  readonly error?: string;
}

/** A file that differs; `lines` are those of a text between what both have in common at its start and its end. */
export interface DiffedSidecar {
  readonly path: string;
  /** SHA-256, null where a side lacks it */
  readonly a: string | null;
  readonly b: string | null;
  readonly lines?: { readonly from: number; readonly a: readonly string[]; readonly b: readonly string[] };
}
