/** What a format is: how bytes lie. It knows nothing of models. */
import type { Checkpoint, Rank, Sidecar, Span } from "../src/core/checkpoint.ts";
import type { DType, RecastKind, Shape } from "../src/core/dtype.ts";
import type { IsologitError } from "../src/core/errors.ts";
import type { Store } from "../src/core/io.ts";

/** What shall be written, before anyone has decided where. */
export interface WriteRequest {
  /** in the spelling of the writer's software */
  readonly config: Readonly<Record<string, unknown>>;
  readonly dialect: string;
  /** in execution order: a forward pass reads them one after the other */
  readonly tensors: readonly WantedTensor[];
  /** names, without the writer's prefix, of empty pickled entries that loaders demand; each holds `[None]` */
  readonly objects: readonly string[];
  /**
   * Small files, by path as in a Hugging Face folder; `bytes` are new, `span` is copied from the source's store.
   * config.json is among them where the writer takes it. What begins with ORIGIN_FOLDER keeps its path.
   */
  readonly sidecars: readonly (WantedSidecar | Sidecar)[];
  /** the source's weight files as they were spelt; empty where it has no such spelling */
  readonly weightFiles: readonly { readonly path: string; readonly header: Uint8Array }[];
  readonly options: {
    readonly maxShardBytes?: number;
    readonly alignment?: number;
    /** ranks that the tensors are cut for; default 1 */
    readonly tp?: number;
    readonly pp?: number;
  };
}

export interface WantedTensor {
  /** without the writer's prefix */
  readonly name: string;
  /** the process whose file it belongs to, where the dialect is of ranks */
  readonly rank?: Rank;
  readonly dtype: DType;
  readonly shape: Shape;
  /** set where the bits are not the source's: the elements' type there, and what was done */
  readonly recast?: {
    readonly kind: RecastKind;
    readonly sourceDtype: DType;
  };
}

export interface WantedSidecar {
  readonly path: string;
  readonly bytes: Uint8Array;
}

/**
 * Every file, size and offset of a destination, known before any byte is read. Tensors are contiguous; `name` is
 * the wanted tensor's `tensorKey`, without a prefix.
 */
export interface Placement {
  readonly files: readonly { readonly path: string; readonly size: number }[];
  readonly tensors: readonly { readonly name: string; readonly file: string; readonly offset: number }[];
  /** bytes known now: headers, config, index */
  readonly inline: readonly { readonly file: string; readonly offset: number; readonly bytes: Uint8Array }[];
  /** side files copied from the source's store */
  readonly copies: readonly { readonly file: string; readonly offset: number; readonly from: Span }[];
  /** spans of known place and size whose bytes follow from hashes; see `seal` */
  readonly seals: readonly Span[];
}

/** What is known of a tensor once its last byte is written. */
export interface TensorDigests {
  /** SHA-256 of the stored elements, hex */
  readonly sha256: string;
  /** CRC-32 of each run of CHUNK_BYTES stored bytes; empty where the format has no seals */
  readonly crc32: readonly number[];
  /** of a recast tensor */
  readonly source?: { readonly sha256?: string; readonly amax?: number; readonly scale?: number };
}

/** Checksums are kept per run of this many bytes, so that a damaged file is located and a band can be checked alone. */
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
  /** what stands before every stored name */
  readonly prefix: string;
  readonly dtypes: readonly DType[];
  /** a folder of files, or one file (whose path in the placement is "") */
  readonly container: "folder" | "file";
  /** endings of a destination that mean this format */
  readonly endings: readonly string[];
  /** which side files it has a place for; absent: all. The others travel under ORIGIN_FOLDER */
  takes?(path: string): boolean;
  /** what is put behind the file to hold its certificate; absent: a folder, in which it is a file */
  trailer?(certificate: Uint8Array): Uint8Array;
  place(wanted: WriteRequest): Placement;
  /** The bytes of `placement.seals`, in their order. Absent where a format has none. */
  seal?(
    wanted: WriteRequest,
    placement: Placement,
    sealed: ReadonlyMap<string, TensorDigests>,
  ): readonly Uint8Array[];
}

export interface ReadOptions {
  /** given only to formats with `iterations`; default the latest */
  readonly iteration?: number;
}

export interface Format {
  readonly id: string;
  readonly title: string;
  /** a folder may hold several steps of a training run */
  readonly iterations?: true;
  /** Decided from names and first bytes alone. */
  detect(store: Store): Promise<"yes" | "maybe" | "no">;
  /** Headers only. @throws codes of exit status 3, each naming file, tensor and offset */
  read(store: Store, options?: ReadOptions): Promise<Checkpoint>;
  /** Every fault that reading a sound front's bytes finds. Absent: `seals` of what `read` gives say all that can be said */
  damage?(store: Store, signal?: AbortSignal): AsyncIterable<IsologitError>;
  /** absent: read-only */
  readonly writes?: Writer;
}
