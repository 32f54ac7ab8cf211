/** A checkpoint is metadata and a place to read from. */
import type { DType, RecastKind, Shape } from "./dtype.ts";
import type { Store } from "./io.ts";

/** A run of bytes in a file of the checkpoint's store. */
export interface Span {
  readonly file: string;
  readonly offset: number;
  readonly size: number;
}

/** A run of bytes, and what the checkpoint's format says that they hash to. */
export interface SealedSpan extends Span {
  /** the tensor, the side file or the entry, as a person would call it */
  readonly what: string;
  /** `tensorKey` of the tensor that the bytes are elements of */
  readonly tensor?: string;
  /** hex */
  readonly sha256?: string;
  /** CRC-32 of each run of `chunkBytes`, the last one shorter */
  readonly crc32?: { readonly chunkBytes: number; readonly sums: readonly number[] };
}

/** A box of a tensor and where its elements lie. `strides` (elements) are C order over `shape` when absent. */
export interface Piece {
  readonly file: string;
  /** bytes from the start of `file` to the first element of the box */
  readonly offset: number;
  readonly start: Shape;
  readonly shape: Shape;
  readonly strides?: Shape;
}

/** Which process of a training run stored a tensor: tensor, pipeline and expert parallel, each from 0. */
export interface Rank {
  readonly tp: number;
  readonly pp: number;
  readonly ep: number;
}

export interface Tensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** ranks of an mp_rank file, which repeat names */
  readonly rank?: Rank;
  /** they tile the tensor */
  readonly pieces: readonly Piece[];
}

/** What tells a stored tensor from all others: its name, and its rank where ranks repeat names. */
export function tensorKey({ name, rank }: { readonly name: string; readonly rank?: Rank }): string {
  return rank === undefined ? name : `${name}@${rank.tp}.${rank.pp}.${rank.ep}`;
}

/** A file beside the weights that travels byte for byte. */
export interface Sidecar {
  readonly path: string;
  readonly span: Span;
}

/** Something odd about files that were read all the same: a finding of `check`, a warning of a conversion. */
export interface Remark {
  /** stable name of the finding */
  readonly rule: string;
  /** "error" where software that loads the checkpoint loads another model from it, or none */
  readonly severity: "error" | "warning" | "note";
  readonly at: { readonly file: string; readonly tensor?: string };
  readonly message: string;
}

/** A file beside the weights that is no part of the model, and does not travel unasked. */
export interface Surplus extends Sidecar {
  /** what it is, in words */
  readonly why: string;
  /** weights that loaders would read beside those of a new folder, or in their place: they never travel into one */
  readonly rival: boolean;
}

/** A certificate beside the files of a checkpoint. It speaks of them and is none of them: it never travels. */
export const CERTIFICATE_FILE = "isologit.certificate.json";
/** The model card: text for people, which `upload` rewrites. */
export const CARD_FILE = "README.md";

/** A weight file as its writer spelt it: `header` is every byte before the first tensor's. */
interface WeightFile {
  readonly path: string;
  readonly header: Span;
}

/** What a recast left behind in a packed file: how the stored bits came from the source's. */
export interface RecastRecord {
  readonly tensor: string;
  readonly kind: RecastKind;
  readonly sourceDtype: DType;
  /** SHA-256 of the source's elements, hex */
  readonly sourceDigest: string;
  /** FP8 only: largest |w| of the source and the factor from stored to real, both f32 */
  readonly amax?: number;
  readonly scale?: number;
}

/** What a destination could not say, kept beside it by an earlier conversion. */
export interface CarriedFiles {
  /** content root of the model that the files belong to, hex; "" where it was not verified */
  readonly root: string;
  /** paths as in the folder they came from; headers of weight files lie under ORIGIN_HEADERS */
  readonly sidecars: readonly Sidecar[];
}

/** What was learned of a checkpoint beside its config: from its tokenizer, or from whoever asked. */
export interface Hints {
  /** true size of the vocabulary, where the config knows only padded rows */
  readonly vocab?: number;
  /** another checkpoint of such a model: its config and side files stand in for what this one lacks */
  readonly like?: Checkpoint;
}

export interface Checkpoint {
  readonly format: string;
  readonly dialect: string;
  /** raw, in the spelling of the software that wrote it */
  readonly config: Readonly<Record<string, unknown>>;
  /** what the format's own software was passed, where it loads that and not `config`: both must say one model */
  readonly loadedConfig?: { readonly file: string; readonly config: Readonly<Record<string, unknown>> };
  readonly tensors: readonly Tensor[];
  /** pickled entries, unread */
  readonly objects: readonly string[];
  /** every file but the weights and the surplus, config.json included, sorted by path */
  readonly sidecars: readonly Sidecar[];
  /** weight files in their order, where the writer's own spelling can be given back */
  readonly weightFiles: readonly WeightFile[];
  readonly recasts: readonly RecastRecord[];
  /** absent where the format keeps no digests of what it holds */
  readonly seals?: readonly SealedSpan[];
  readonly carriedFiles?: CarriedFiles;
  /** absent: there is nothing to say */
  readonly remarks?: readonly Remark[];
  /** files that are no side files, sorted by path */
  readonly surplus?: readonly Surplus[];
  readonly hints?: Hints;
  readonly store: Store;
}
