/** What the main thread asks of a worker thread, and what it answers. */
import type { BlockScales } from "../cast/blocks.ts";
import type { Cast, EmptyKind } from "../cast/cast.ts";
import type { BlockTarget, CastDType, DecodedBlock, FloatDType } from "../core/dtype.ts";
import type { ErrorCode, ErrorLocation } from "../core/errors.ts";
import type { BlockGrid, BlockMaxima } from "./block-maxima.ts";
import type { CodeDType } from "./code-bound.ts";

/** A request to a worker. Addresses (`at`, `a`, `b`, `toAt`) are bytes in its memory; counts are elements. */
export type Call =
  /** largest |x|, an F32 value. @throws NON_FINITE with the index, counted from `at` */
  | { readonly op: "amax"; readonly dtype: FloatDType; readonly at: number; readonly count: number }
  /**
   * digests the next band of a tensor, and casts it first if `cast` is given; `overflowAt` is an index or -1
   *
   * @throws with a cast to blocks: NON_FINITE, OVERFLOW with the index, counted from `at`
   */
  | {
      readonly op: "band";
      /** compute checksums of chunks too, for the seals of a format */
      readonly sealed: boolean;
      /** with a cast: digest the bytes of the source too; default false */
      readonly ofSource?: boolean;
      /** with a cast: the source has codes or values of codes. @throws NON_FINITE with the index of the first NaN */
      readonly ofCodes?: boolean;
      readonly at: number;
      readonly size: number;
      readonly cast?: BandCast;
      /** elements of the band at `at`; given, `dead` tells whether all of them are 0 or all are NaN */
      readonly probe?: { readonly dtype: FloatDType; readonly count: number };
    }
  /**
   * casts rows of a matrix to E4M3 with a scale for each block, and digests the codes as `band` does. "whole": the rows are
   * whole rows of blocks. A row of blocks that no buffer holds takes several calls: first "observe" for all its rows, then
   * "codes". The scales follow the codes at `toAt`; "codes" writes them only where `first` is true.
   *
   * @throws NON_FINITE with the index, counted from `at`
   */
  | {
      readonly op: "blocks";
      readonly part: "whole" | "observe" | "codes";
      /** the first call of this part for a row of blocks */
      readonly first: boolean;
      readonly scales: BlockScales;
      readonly at: number;
      readonly rows: number;
      readonly toAt: number;
      readonly sealed: boolean;
      readonly ofSource: boolean;
    }
  /**
   * copies columns of the rows of a matrix, which are cast first if `cast` is given, to a place for each part, and digests each part
   * alone. `from` and `to` are bytes in a row, which has `rowBytes` after the cast
   */
  | {
      readonly op: "columns";
      readonly at: number;
      readonly rows: number;
      readonly rowBytes: number;
      readonly parts: readonly { readonly from: number; readonly to: number; readonly toAt: number }[];
      readonly sealed: boolean;
      readonly cast?: BandCast;
      readonly ofCodes?: boolean;
    }
  /** digests of all bands since the last `finish`; `source` is the digest before a cast, else that of the stored bytes */
  | { readonly op: "finish" }
  /** digests band a as the source and band b as stored; `differsAt` is the first element of b that differs from (the cast of) a */
  | {
      readonly op: "pair";
      readonly a: number;
      readonly size: number;
      readonly b: number;
      readonly toSize: number;
      readonly count: number;
      readonly cast?: Cast & {
        readonly toAt: number;
        /** elements of a row, if rows are examined; else 0 */
        readonly columns: number;
        /** other codes than the nearest are accepted within their bound; default false */
        readonly bounded?: boolean;
        /** a holds F32 values: tell whether b has the same; default false */
        readonly exact?: boolean;
      };
      /** type of the elements of a; given, `dead` tells whether all of them are 0 or all are NaN */
      readonly probe?: FloatDType;
    }
  /**
   * digests band a as the source and band b as stored; b holds decoded values and `scales` the scale of each. `differsAt` is
   * the first element of b that is beyond the bound of a rounding of a
   */
  | {
      readonly op: "bound";
      readonly a: number;
      readonly from: FloatDType;
      readonly size: number;
      readonly b: number;
      readonly scales: number;
      readonly count: number;
      readonly codes: CodeDType;
      /** return the largest magnitudes of blocks too; `lo` is the index of the first element in the tensor */
      readonly blocks?: BlockGrid & { readonly lo: number };
      /** elements of a row, if rows are examined; else 0 */
      readonly columns: number;
      /** factor from stored to real values of an FP8 source */
      readonly sourceScale: number | null;
    }
  /**
   * digests band a as the source; b holds the values of blocks of `blocks`. `differsAt` is the first element of the first block
   * that is too far from a
   */
  | {
      readonly op: "blocksOf";
      readonly a: number;
      readonly from: FloatDType;
      readonly size: number;
      readonly b: number;
      readonly count: number;
      readonly blocks: DecodedBlock;
      /** elements of a row, if rows are examined; else 0 */
      readonly columns: number;
      /** factor from stored to real values of an FP8 source */
      readonly sourceScale: number | null;
      /** the blocks as stored: then each must have the bytes that the encoder makes of a, at `toAt` */
      readonly exact?: {
        readonly type: BlockTarget;
        readonly at: number;
        readonly size: number;
        readonly toAt: number;
      };
    };

/** A cast of the elements of a band, and where the result goes. */
export interface BandCast extends Omit<Cast, "to"> {
  readonly to: CastDType;
  readonly toAt: number;
  readonly toSize: number;
  readonly count: number;
}

/** What a cast destroyed in a band. */
export interface Loss {
  /** elements of a that are not 0 */
  readonly nonzero: number;
  /** of these, how many became 0 */
  readonly zeroed: number;
  /** of these, how many became 0 or a subnormal number */
  readonly coarse: number;
  /** elements that exceed the largest number of the destination's dtype */
  readonly clipped: number;
}

interface StoredDigests {
  readonly sha256: string;
  readonly crc32: readonly number[];
}

interface PairResult {
  readonly differsAt: number;
  readonly amax: number;
  readonly dead: EmptyKind | null;
  /** null without a cast */
  readonly error: CastError | null;
}

/** How far a band of b is from the band of a that it was cast from. */
export interface CastError {
  readonly loss: Loss;
  /** elements of b that are not nearest to the element of a, but within the bound */
  readonly notNearest: number;
  /** elements of b beyond that bound */
  readonly beyond: number;
  /** asked for, or with decoded values: whether every element of b has exactly the value of its element of a */
  readonly isExact: boolean;
  /** for each row the sum of (w - v)^2 and the sum of w^2, [rows, 2]; one row if rows are not examined */
  readonly sums: Float64Array;
}

export interface CallResults {
  amax: number;
  band: { overflowAt: number; dead: EmptyKind | null };
  /** size of the scales after the codes, bytes */
  blocks: { scaleBytes: number };
  columns: { overflowAt: number };
  /** `columns`: of the parts of such calls */
  finish: StoredDigests & { source: string; columns: readonly StoredDigests[] };
  /** `amax` of the stored numbers in a if they are cast to FP8, else 0 */
  pair: PairResult;
  blocksOf: PairResult;
  bound: PairResult & { readonly maxima: BlockMaxima | null };
}

export type Answer =
  | { readonly id: number; readonly value: unknown; readonly error?: never }
  | {
      readonly id: number;
      readonly error: { readonly code: ErrorCode; readonly at: ErrorLocation; readonly message: string };
    };
