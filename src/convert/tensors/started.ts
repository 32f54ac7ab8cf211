import type { TensorDigests } from "../../../formats/format.ts";

/** Tensors whose elements are read, and whose last bands are being cast, digested and written. */
export interface StartedTensors {
  /** of each tensor, when it is written */
  readonly digests: Promise<readonly TensorDigests[]>;
}
