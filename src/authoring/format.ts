/// <reference types="node" preserve="true" />
/** `isologit/format`: what the author of a format needs. docs/extending.md walks through an example. */
export { folderPlan } from "../../formats/folder-placement.ts";
export {
  CHUNK_BYTES,
  type Format,
  type Placement,
  type ReadOptions,
  type TensorDigests,
  type WantedSidecar,
  type WantedTensor,
  type WriteRequest,
  type Writer,
} from "../../formats/format.ts";
export {
  type Checkpoint,
  type Piece,
  type Rank,
  type SealedSpan,
  type Sidecar,
  type Span,
  type Tensor,
  tensorKey,
} from "../core/checkpoint.ts";
export { bytesOf, countOf, DTYPES, type DType, isDType, type Shape } from "../core/dtype.ts";
export { IsologitError } from "../core/errors.ts";
export { type ByteSource, readRange, readSmall, type Store } from "../core/io.ts";
export { parseJsonObject } from "../core/json.ts";
export { safePath } from "../core/safe-path.ts";
export type { Plugin } from "../plugins/plugin.ts";
export {
  blockOf,
  gridOf,
  type Quantization,
  type QuantizationDialect,
  type QuantizedModel,
  type WeightScales,
} from "../plugins/quantization-dialect.ts";
