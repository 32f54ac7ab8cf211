/** What a format is: how bytes lie. It knows nothing of models. */
import type { Checkpoint, Sidecar, Span } from "../src/core/checkpoint.ts";
import type { DType, Shape } from "../src/core/dtype.ts";
import type { Store } from "../src/core/io.ts";

/** What shall be written, before anyone has decided where. */
export interface Manifest {
  readonly config: Readonly<Record<string, unknown>>;
  readonly dialect: string;
  /** in execution order: a forward pass reads them one after the other */
  readonly tensors: readonly WantedTensor[];
  /** small files, by path; `bytes` are new, `span` is copied from the source's store. config.json is among them */
  readonly sidecars: readonly (WantedSidecar | Sidecar)[];
  /** the source's weight files as they were spelt; empty where it has no such spelling */
  readonly shards: readonly { readonly path: string; readonly header: Uint8Array }[];
  readonly options: { readonly maxShardBytes?: number; readonly alignment?: number };
}

export interface WantedTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** set where the bits are not the source's: the elements' type there, and what was done */
  readonly recast?: {
    readonly kind: "f32" | "f16" | "bf16" | "fp8-e4m3" | "fp8-e5m2";
    readonly sourceDtype: DType;
  };
}

export interface WantedSidecar {
  readonly path: string;
  readonly bytes: Uint8Array;
}

/** Every file, size and offset of a destination, known before any byte is read. Tensors are contiguous. */
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
export interface Sealed {
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
  /** what stands before every stored name */
  readonly prefix: string;
  readonly dtypes: readonly DType[];
  /** a folder of files, or one file (whose path in the placement is "") */
  readonly container: "folder" | "file";
  /** endings of a destination that mean this format */
  readonly endings: readonly string[];
  /** what is put behind the file to hold its certificate; absent: a folder, in which it is a file */
  trailer?(certificate: Uint8Array): Uint8Array;
  place(wanted: Manifest): Placement;
  /** The bytes of `placement.seals`, in their order. Absent where a format has none. */
  seal?(wanted: Manifest, placement: Placement, sealed: ReadonlyMap<string, Sealed>): readonly Uint8Array[];
}

export interface Format {
  readonly id: string;
  readonly title: string;
  /** Decided from names and first bytes alone. */
  detect(store: Store): Promise<"yes" | "maybe" | "no">;
  /** Headers only. @throws codes of exit status 3, each naming file, tensor and offset */
  read(store: Store): Promise<Checkpoint>;
  /** absent: read-only */
  readonly writes?: Writer;
}
