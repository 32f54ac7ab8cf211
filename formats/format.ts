/** The interface of a format: where bytes lie in files. A format knows nothing about models. */
import type { Checkpoint, Rank, Sidecar, Span } from "../src/core/checkpoint.ts";
import type { DType, FileKind, RecastKind, Shape } from "../src/core/dtype.ts";
import type { IsologitError } from "../src/core/errors.ts";
import type { Store } from "../src/core/io.ts";

/** The content of a destination, before its places are decided. */
export interface WriteRequest {
  /** the config record, with the keys of the writer's software */
  readonly config: Readonly<Record<string, unknown>>;
  readonly dialect: string;
  /** in execution order, so that a forward pass reads them one after the other */
  readonly tensors: readonly WantedTensor[];
  /** names, without the writer's prefix, of empty pickled entries that loaders require; each contains `[None]` */
  readonly objects: readonly string[];
  /** the layers are equal: a distributed checkpoint stores each module of all layers as one tensor */
  readonly stackLayers?: true;
  /**
   * Small files, with their paths in a Hugging Face folder; `bytes` are new, `span` is copied from the source's store.
   * config.json is one of them if the writer takes it. A path that begins with ORIGIN_FOLDER stays as it is.
   */
  readonly sidecars: readonly (WantedSidecar | Sidecar)[];
  /** headers of the source's weight files; empty if the source is not safetensors */
  readonly weightFiles: readonly { readonly path: string; readonly header: Uint8Array }[];
  readonly options: {
    readonly maxShardBytes?: number;
    readonly alignment?: number;
    /** number of ranks that the tensors are cut for; default 1 */
    readonly tp?: number;
    readonly pp?: number;
    /** the kind of file that the types of tensors were chosen for */
    readonly fileKind?: FileKind;
  };
}

export interface WantedTensor {
  /** without the writer's prefix */
  readonly name: string;
  /** the process whose file contains it, in a dialect with a file for each rank */
  readonly rank?: Rank;
  readonly dtype: DType;
  readonly shape: Shape;
  /** for a recast tensor: the kind of recast, and the element type in the source */
  readonly recast?: {
    readonly kind: RecastKind;
    readonly sourceDtype: DType;
    /** name of the tensor with its scales, if it has several; one scale is in the digests */
    readonly scales?: string;
  };
}

/** A tensor of a destination: its name, and its shape with the slowest dimension first. */
export type NamedShape = Pick<WantedTensor, "name" | "shape">;

/** The type that a kind of file gives to a tensor. */
export interface TypeChoice {
  readonly dtype: DType;
  /** the type that it would have, if its rows were whole blocks of that type */
  readonly instead?: DType;
}

/** Chooses the types of a destination's tensors; the results are by name. */
export interface TypeChooser {
  ofKind(kind: FileKind, tensors: readonly NamedShape[]): Promise<ReadonlyMap<string, TypeChoice>>;
  /** all types that each tensor can have, fewest bits first; a single one where its software reads no other */
  possible(tensors: readonly NamedShape[]): Promise<ReadonlyMap<string, readonly DType[]>>;
}

export interface WantedSidecar {
  readonly path: string;
  readonly bytes: Uint8Array;
}

/**
 * Every file, size and offset of a destination, known before any weight is read. Tensors are contiguous; `name` is the
 * `tensorKey` of the wanted tensor, without a prefix.
 */
export interface Placement {
  readonly files: readonly { readonly path: string; readonly size: number }[];
  readonly tensors: readonly { readonly name: string; readonly file: string; readonly offset: number }[];
  /** bytes known now: headers, config, index */
  readonly inline: readonly { readonly file: string; readonly offset: number; readonly bytes: Uint8Array }[];
  /** side files copied from the source's store */
  readonly copies: readonly { readonly file: string; readonly offset: number; readonly from: Span }[];
  /** spans of known place and size whose bytes follow from digests; see `seal` */
  readonly seals: readonly Span[];
  /** where the root of carried files is written, if no file of its own has it */
  readonly root?: { readonly file: string; readonly offset: number };
  /** what the destination cannot hold, as warnings */
  readonly notes?: readonly string[];
}

/** Digests of a tensor, known after its last byte is written. */
export interface TensorDigests {
  /** SHA-256 of the stored elements, hex */
  readonly sha256: string;
  /** CRC-32 of each run of CHUNK_BYTES stored bytes; empty if the format has no seals */
  readonly crc32: readonly number[];
  /** for a recast tensor: digest of the elements before the cast, and the scale of FP8 */
  readonly source?: { readonly sha256?: string; readonly amax?: number; readonly scale?: number };
  /** for a tensor with several scales: digests of the tensor that holds them */
  readonly scales?: Pick<TensorDigests, "sha256" | "crc32">;
}

/** A checksum covers this many bytes, so that damage can be located and a band can be checked alone. */
export const CHUNK_BYTES = 16 * 1024 * 1024;

export interface Writer {
  readonly dialect: string;
  /** which software loads it: one dialect may have several, each with its own names of config keys */
  readonly software: string;
  /**
   * "file": it holds config.json and the headers of the source's weight files byte for byte. "record": it holds
   * `WriteRequest.config` in its own files; config.json and headers are carried under ORIGIN_FOLDER.
   */
  readonly config: "file" | "record";
  /** for which ranks its tensors can be cut: tensor parallel, pipeline parallel; absent: none */
  readonly ranks?: readonly ("tp" | "pp")[];
  /** writes a folder of several files instead of one file, where a size of files is given; absent: the writer follows the size itself */
  readonly inParts?: Writer;
  /** prefix of every stored name */
  readonly prefix: string;
  readonly dtypes: readonly DType[];
  /** a folder of files, or one file (whose path in the placement is "") */
  readonly container: "folder" | "file";
  /** endings of a destination that mean this format */
  readonly endings: readonly string[];
  /** `place` gets the bytes of all side files, because they are part of a header */
  readonly inlinesFiles?: true;
  /** it notes from which type each tensor was widened, so that widening loses nothing */
  readonly notesWidening?: true;
  /** which side files it has a place for; absent: all. The others are carried under ORIGIN_FOLDER */
  takes?(path: string): boolean;
  /** the bytes after the end of the file that contain its certificate; absent for a folder, where the certificate is a file */
  trailer?(certificate: Uint8Array): Uint8Array;
  /** the types that its tensors can have one by one; absent: it has no kinds of files, and recipes cannot name types */
  readonly tensorTypes?: TypeChooser;
  place(wanted: WriteRequest): Promise<Placement>;
  /** The bytes of `placement.seals`, in their order. Absent if a format has no seals. */
  seal?(
    wanted: WriteRequest,
    placement: Placement,
    sealed: ReadonlyMap<string, TensorDigests>,
  ): Promise<readonly Uint8Array[]>;
}

export interface ReadOptions {
  /** iteration to read, for formats with `iterations`; default: the latest */
  readonly iteration?: number;
  /** make side files that the format stores in another form, such as the keys of a tokenizer; default false */
  readonly makeFiles?: boolean;
}

export interface Format {
  readonly id: string;
  readonly title: string;
  /** a folder may contain several iterations of a training run */
  readonly iterations?: true;
  /** Whether a store has this format, decided from names and first bytes only. */
  detect(store: Store): Promise<"yes" | "maybe" | "no">;
  /** Reads headers only. @throws codes of exit status 3, each with file, tensor and offset */
  read(store: Store, options?: ReadOptions): Promise<Checkpoint>;
  /** All faults that a full read finds, after `read` succeeded. Absent: the `seals` of the checkpoint are sufficient */
  damage?(store: Store, signal?: AbortSignal): AsyncIterable<IsologitError>;
  /** absent: read-only */
  readonly writes?: Writer;
}
