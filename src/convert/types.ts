/** The values that pass between the steps of a conversion: the plan, its jobs, and a run of the plan. */

import type { Placement, WantedTensor, WriteRequest, Writer } from "../../formats/format.ts";
import type { ScaleTable } from "../checkpoint/scales.ts";
import type { DType, FloatDType, Shape } from "../core/dtype.ts";
import type { Watch } from "../core/events.ts";
import type { ElementSource } from "../core/gather.ts";
import type { Matched, Role } from "../families/model.ts";
import type { Staging } from "../io/staging.ts";
import type { WorkerPool } from "../workers/pool.ts";
import type { Conversion } from "./conversion-record.ts";

/** What lies in or beside a checkpoint, is no part of the model, and does not travel. */
export interface DroppedEntries {
  readonly why: string;
  /** entries of a file, or whole files */
  readonly entries: number;
  /** size of the files, where they are whole ones */
  readonly bytes?: number;
}

/** Rows of the token table and of the head, each, that the model has no token for. */
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
}

/** What a conversion will do: each tensor of the destination, where its elements come from, and where each byte lies. */
export interface Plan {
  /** SHA-256 of all that the plan depends on: equal ids give equal bytes */
  readonly id: string;
  /** what was asked beside the format */
  readonly conversion: Conversion | undefined;
  readonly source: Matched;
  readonly scales: ScaleTable;
  readonly manifest: WriteRequest;
  readonly placement: Placement;
  readonly jobs: readonly Job[];
  /** nothing is recast: the content root stays */
  readonly exact: boolean;
  /** side files came home from an earlier conversion */
  readonly restored: boolean;
  /** buffers, bytes */
  readonly peakBytes: number;
  readonly warnings: readonly string[];
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
}

/** One tensor's way from source to destination. */
export interface Job {
  readonly tensor: WantedTensor;
  /** what it is in the model, the first of those it joins; null for a scale */
  readonly role: Role | null;
  readonly elementSource: ElementSource;
  readonly sourceDtype: DType;
  readonly count: number;
  /** a share of a matrix's columns */
  readonly columns?: ColumnShare;
  /** absent: the bits stay */
  readonly cast?: {
    readonly from: FloatDType;
    readonly to: FloatDType;
    /** an FP8 source is decoded: each run of elements by the stored scale of the tensor it comes from */
    readonly sourceScales?: readonly ScaledRun[];
    /** tensor that receives the scale of an FP8 destination */
    readonly scaleTo?: string;
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
  /** no verification will read the source again: what it has sealed is compared here, to the last tensor */
  readonly alone: boolean;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}
