/** The values that pass between the steps of a conversion: the plan, its jobs, and a run of the plan. */

import type { Placement, WantedTensor, WriteRequest, Writer } from "../../formats/format.ts";
import type { BlockScales } from "../cast/blocks.ts";
import type { ScaleTable } from "../checkpoint/scales/pair.ts";
import type { CastDType, DType, FloatDType, Shape } from "../core/dtype.ts";
import type { Watch } from "../core/events.ts";
import type { ElementSource } from "../core/gather.ts";
import type { MatchedModel, Role } from "../families/model.ts";
import type { Staging } from "../io/staging.ts";
import type { CalibrationRecord } from "../quantization/calibration.ts";
import type { PoolSize, WorkerPool } from "../workers/pool.ts";
import type { Conversion } from "./conversion-record.ts";
import type { FileKindReport } from "./dtypes/file-kind.ts";

/** Entries or files of a checkpoint that do not belong to the model and are not copied. */
export interface DroppedEntries {
  readonly why: string;
  /** number of entries in a file, or of whole files */
  readonly entries: number;
  /** size of whole files */
  readonly bytes?: number;
}

/** Rows without a token, in the token table and in the head each. */
export interface PaddingRows {
  readonly cut: number;
  readonly added: number;
}

export interface PlannedTensor {
  readonly name: string;
  readonly role: string;
  readonly layer: number | null;
  readonly from: string;
  readonly dtype: string;
  readonly sourceDtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
  /** why it is cast, or keeps its dtype */
  readonly why: string;
}

/** What a conversion will do: each tensor of the destination, where its elements come from, and where each byte lies. */
export interface Plan {
  /** SHA-256 of everything that decides the written bytes: equal ids give equal bytes */
  readonly id: string;
  /** the options apart from the format */
  readonly conversion: Conversion | undefined;
  readonly source: MatchedModel;
  readonly scales: ScaleTable;
  readonly manifest: WriteRequest;
  readonly placement: Placement;
  readonly jobs: readonly Job[];
  /** the prompt of calibrated scales; null: none were calibrated */
  readonly calibrated: CalibrationRecord | null;
  /** tensors whose bytes are known before the run, by `tensorKey`: calibrated scales */
  readonly known: ReadonlyMap<string, Uint8Array>;
  /** what the kind of file, or the recipe with types, makes of the weights; null: neither was asked for */
  readonly fileKind: FileKindReport | null;
  /** nothing is recast, so the content root stays the same */
  readonly exact: boolean;
  /** side files that an earlier conversion carried are restored */
  readonly restored: boolean;
  /** the buffers of a run */
  readonly pool: PoolSize;
  readonly warnings: readonly string[];
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
}

/** How one tensor of the destination is made from the source. */
export interface Job {
  readonly tensor: WantedTensor;
  /** its role, or the first of the roles it joins; null for a scale */
  readonly role: Role | null;
  /** the reason for its dtype, in words */
  readonly why: string;
  readonly elementSource: ElementSource;
  /** where the elements are products: the values of the source that are multiplied */
  readonly multiplied?: ElementSource;
  readonly sourceDtype: DType;
  readonly count: number;
  /** the tensor is a share of a matrix's columns */
  readonly columns?: ColumnShare;
  /** absent: the bits are copied */
  readonly cast?: {
    readonly from: FloatDType;
    readonly to: CastDType;
    /** the elements are decoded from codes and several scales */
    readonly fromCodes?: true;
    /** for an FP8 source: the stored scale of each run of elements */
    readonly sourceScales?: readonly ScaledRun[];
    /** for an FP8 destination: the tensor that receives the scale */
    readonly scaleTo?: string;
    /** keys of other tensors of the destination that get the same scale, by the largest of all weights */
    readonly sharedWith?: readonly string[];
    /** for several scales: how the matrix is divided; absent: one scale for the tensor */
    readonly blocks?: BlockScales;
  };
}

/** Elements [lo, hi), whose scale is the stored tensor `scale`. */
export interface ScaledRun {
  readonly lo: number;
  readonly hi: number;
  readonly scale: string;
}

/** Columns [from, to) of a role's matrix. */
export interface ColumnShare {
  readonly role: string;
  /** of the whole matrix */
  readonly shape: Shape;
  readonly from: number;
  readonly to: number;
}

/** What the steps of one run share. */
export interface ConversionRun {
  readonly plan: Plan;
  readonly writer: Writer;
  readonly staging: Staging;
  readonly pool: WorkerPool;
  readonly allowOverflow: boolean;
  /** no verification will read the source again, so this run compares all of its seals */
  readonly alone: boolean;
  /** tensors that an earlier run wrote and that need not be read again, because the verification reads them */
  readonly trusted?: ((key: string) => boolean) | undefined;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}
