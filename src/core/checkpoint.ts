/** A checkpoint: its metadata, and the store that its files are read from. */
import type { DType, RecastKind, Shape } from "./dtype.ts";
import type { Store } from "./io.ts";

/** A run of bytes in a file of the checkpoint's store. */
export interface Span {
  readonly file: string;
  readonly offset: number;
  readonly size: number;
}

/** A run of bytes, and the digests that the checkpoint stores of them. */
export interface SealedSpan extends Span {
  /** name of the tensor, side file or entry in messages */
  readonly what: string;
  /** `tensorKey` of the tensor, if the bytes are its elements */
  readonly tensor?: string;
  /** hex */
  readonly sha256?: string;
  /** CRC-32 of each run of `chunkBytes`, the last one shorter */
  readonly crc32?: { readonly chunkBytes: number; readonly sums: readonly number[] };
}

/** A box of a tensor and where its elements are stored. `strides` count elements; default: C order over `shape`. */
export interface Piece {
  readonly file: string;
  /** bytes from the start of `file` to the first element of the box */
  readonly offset: number;
  readonly start: Shape;
  readonly shape: Shape;
  readonly strides?: Shape;
}

/** The process of a training run that stored a tensor: its tensor, pipeline and expert parallel numbers, from 0. */
export interface Rank {
  readonly tp: number;
  readonly pp: number;
  readonly ep: number;
}

export interface Tensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** only in formats with a file for each rank, where ranks use the same names */
  readonly rank?: Rank;
  /** they tile the tensor */
  readonly pieces: readonly Piece[];
  /** name, dtype and shape in the file, if the file stores codes of four bits as bytes */
  readonly stored?: Pick<Tensor, "name" | "dtype" | "shape">;
}

/** Identifies a stored tensor: its name, and its rank if ranks use the same names. */
export function tensorKey({ name, rank }: { readonly name: string; readonly rank?: Rank }): string {
  return rank === undefined ? name : `${name}@${rank.tp}.${rank.pp}.${rank.ep}`;
}

/** A file beside the weights that a conversion copies byte for byte. */
export interface Sidecar {
  readonly path: string;
  readonly span: Span;
}

/** A fault that does not stop the reader: a finding of `check`, and a warning of a conversion. */
export interface Remark {
  /** stable name of the finding */
  readonly rule: string;
  /** "error" if other software loads a different model from these files, or none */
  readonly severity: "error" | "warning" | "note";
  readonly at: { readonly file: string; readonly tensor?: string };
  readonly message: string;
}

/** A file beside the weights that is not part of the model. A conversion copies it only on request. */
export interface Surplus extends Sidecar {
  /** what the file is, for messages */
  readonly why: string;
  /** weights that loaders of a new folder would read beside its own weights, or instead: they are never copied there */
  readonly rival: boolean;
}

/** The certificate beside the files of a checkpoint. It describes the files, so a conversion does not copy it. */
export const CERTIFICATE_FILE = "isologit.certificate.json";
/** The model card: text for readers. `upload` changes it. */
export const CARD_FILE = "README.md";

/** A weight file. `header` is every byte before the first tensor, to restore the file exactly. */
interface WeightFile {
  readonly path: string;
  readonly header: Span;
}

/** Record of a recast in a packed file: how the stored bits were computed from those of the source. */
export interface RecastRecord {
  readonly tensor: string;
  readonly kind: RecastKind;
  readonly sourceDtype: DType;
  /** SHA-256 of the source's elements, hex */
  readonly sourceDigest: string;
  /** FP8 with one scale, both f32: largest |w| of the source, and the factor from stored to real values */
  readonly amax?: number;
  readonly scale?: number;
  /** FP8 with several scales: the tensor that holds them */
  readonly scales?: string;
}

/** The state that Transformer Engine stored for a module beside its weights, as `_extra_state`. It is read only on request. */
export interface ModuleState {
  readonly module: string;
  readonly file: string;
  /** in an archive of torch.save in the file, or as bytes, in the file or at hand */
  readonly stored:
    | { readonly archive: Pick<Span, "offset" | "size"> }
    | { readonly payload: Pick<Span, "offset" | "size"> | Uint8Array };
}

/** Files that the format cannot hold, stored beside the checkpoint by an earlier conversion. */
export interface CarriedFiles {
  /** content root of the model that the files belong to, hex; "" if the conversion was not verified */
  readonly root: string;
  /** paths as in the original folder; headers of weight files are under ORIGIN_HEADERS */
  readonly sidecars: readonly Sidecar[];
}

/** A key of a header whose values have types, as in GGUF. */
export interface TypedValue {
  readonly key: string;
  /** `u8` to `f64`, `bool`, `string`, or the type of the elements of a list: `i32[]` */
  readonly type: string;
  /** absent if the value is too long to be kept; whole numbers beyond 2^53 are bigints */
  readonly value?: ScalarValue | readonly ScalarValue[];
  /** bytes of a string, elements of a list */
  readonly count?: number;
  /** where the value lies, without its type and its length */
  readonly span: Span;
}

type ScalarValue = number | bigint | boolean | string;

/** Facts about a checkpoint from outside its config: from its tokenizer or from the user. */
export interface Hints {
  /** true size of the vocabulary, if the config has only the padded number of rows */
  readonly vocab?: number;
  /** another checkpoint of a similar model: its config and side files supply what this one lacks */
  readonly like?: Checkpoint;
}

export interface Checkpoint {
  readonly format: string;
  readonly dialect: string;
  /** as parsed from the file, with the keys of the software that wrote it */
  readonly config: Readonly<Record<string, unknown>>;
  /** the record that the format's own software loads instead of `config`; both must describe the same model */
  readonly loadedConfig?: { readonly file: string; readonly config: Readonly<Record<string, unknown>> };
  readonly tensors: readonly Tensor[];
  /**
   * By `tensorKey`, the type from which a tensor was widened to F32; absent if the checkpoint does not note it. Without an
   * entry here a tensor was not widened
   */
  readonly widened?: ReadonlyMap<string, "BF16" | "F16">;
  /** by name, values of small tensors that hold no weights, but numbers of which settings are made */
  readonly constants?: ReadonlyMap<string, Float32Array>;
  /** the keys of the header of the first file, in their order, in a format whose values have types */
  readonly metadata?: readonly TypedValue[];
  /** names of pickled entries; they are not read */
  readonly objects: readonly string[];
  /** of modules that may have been trained in FP8, by name */
  readonly moduleStates?: readonly ModuleState[];
  /** every file but the weights and the surplus, config.json included, sorted by path */
  readonly sidecars: readonly Sidecar[];
  /** weight files in order, if the format allows to restore them exactly */
  readonly weightFiles: readonly WeightFile[];
  readonly recasts: readonly RecastRecord[];
  /** absent if the format stores no digests */
  readonly seals?: readonly SealedSpan[];
  readonly carriedFiles?: CarriedFiles;
  readonly remarks?: readonly Remark[];
  /** other files, sorted by path */
  readonly surplus?: readonly Surplus[];
  readonly hints?: Hints;
  readonly store: Store;
}
