/** How a family computes: the stages of each block, and for each dialect the stored tensors that the stages read. */
import type { Backend, Region } from "../../kernels/kernel.ts";
import type { Shape } from "../core/dtype.ts";
import type { Dims } from "./structure.ts";
import type { Unit } from "./units.ts";

/** Rows [from, from + count) of a stored tensor produce elements [at, at + count) of a stream or parameter. */
export interface OutputRows {
  readonly to: string;
  readonly at: number;
  readonly from: number;
  readonly count: number;
  /** what multiplies each value where it is stored; absent: 1 */
  readonly times?: number;
  /** what is added to each value of a parameter where it is stored; absent: 0 */
  readonly plus?: number;
}

/** Which part of a parameter a stored tensor is. */
export interface TensorPosition {
  /** tensor parallel rank; 0 if the tensor is whole */
  readonly tp: number;
  /** number of its expert among all experts of the layer; 0 if it belongs to no expert */
  readonly expert: number;
  /** a stack of matrices counts as one matrix, [all rows, columns] */
  readonly shape: Shape;
}

/**
 * Heads of `width` rows, of which the first `paired` are stored in pairs: rows 2j and 2j + 1 of a head produce elements j and
 * j + paired / 2 of the same head.
 */
export interface HeadPairs {
  readonly width: number;
  readonly paired: number;
}

/** How a block uses a stored tensor. Written by hand and not derived from the rules, because it checks them. */
export interface Use<D extends Dims = Dims> {
  /** name after the prefix of the layer; `{expert}` stands for a number */
  readonly name: string;
  /** other names; the first name that exists is used */
  readonly also?: readonly string[];
  /** Rows that are padding, or copies of another rank's rows, produce nothing. */
  outputs(d: D, at: TensorPosition): readonly OutputRows[];
  /**
   * In row-parallel layers each rank has some columns of the matrix: this is the element of the input stream that the first
   * column multiplies. The partial sums of the ranks are added in the order of ranks. Default 0.
   */
  inputOffset?(d: D, at: TensorPosition): number;
  /** How rows of a head are stored in pairs. Absent: rows produce elements in order. */
  pairsIn?(d: D): HeadPairs | undefined;
}

/**
 * A stage of a block: it computes streams ([rows, width], F32) from streams. A row is a token. In dispatched streams a row
 * is one token at one of the experts that it chose.
 *
 * - "linear" multiplies by the stored matrices whose rows produce its outputs, in bands
 * - "kernel" runs a kernel with whole parameters; with `choice` its output is expert numbers [tokens, perToken]
 * - "dispatch" copies the row of a token once for each expert that it chose, "experts" multiplies each row by the matrix of
 *   its expert, and "combine" adds the rows of a token, weighted by `weights` [tokens, perToken]
 * - "concat" joins two streams along the width
 */
export type Stage<D extends Dims = Dims> =
  | { readonly op: "linear"; readonly from: string; readonly to: readonly string[] }
  | KernelStage<D>
  | { readonly op: "dispatch"; readonly from: string; readonly to: string }
  | { readonly op: "experts"; readonly from: string; readonly to: string }
  | { readonly op: "combine"; readonly from: string; readonly weights: string; readonly to: string }
  | { readonly op: "concat"; readonly from: readonly [string, string]; readonly to: string };

export interface KernelStage<D extends Dims = Dims> {
  readonly op: "kernel";
  readonly from: readonly string[];
  readonly parameters: readonly string[];
  readonly to: string;
  /** for each parameter the inputs that multiply it: if one of them is all zeros, the parameter has no effect */
  readonly needs?: Readonly<Record<string, readonly string[]>>;
  /** for a stage without parameters: whether an output of zeros is correct for these inputs */
  readonly silent?: (inputs: readonly Float32Array[]) => boolean;
  choice?(d: D): ExpertChoice;
  /**
   * A further input, after the parameters: [rows, any width], computed from the positions of the tokens alone. `first` is the
   * position of row 0 in its sequence.
   */
  table?(d: D, first: number, rows: number): Float32Array;
  /** absent if the result of a token depends on no other token */
  readonly carry?: Carry<D>;
  run(backend: Backend, d: D, rows: number, inputs: readonly Region[], output: Region): Promise<void>;
}

/**
 * What a stage needs from the tokens of earlier runs in order to continue after them.
 * - "rows": the last rows of streams that it reads, at most `most`, default all. `run` gets these streams with `past` earlier
 *   rows before the new ones
 * - "state": `elements` numbers, independent of the number of tokens. `run` gets them as its first input, and writes the new
 *   ones after the rows of its output
 */
export type Carry<D extends Dims = Dims> =
  | {
      readonly keeps: "rows";
      readonly of: readonly string[];
      most?(d: D): number;
      run(
        backend: Backend,
        d: D,
        rows: number,
        past: number,
        inputs: readonly Region[],
        output: Region,
      ): Promise<void>;
    }
  | {
      readonly keeps: "state";
      elements(d: D): number;
      run(backend: Backend, d: D, rows: number, inputs: readonly Region[], output: Region): Promise<void>;
    };

export interface ExpertChoice {
  readonly experts: number;
  readonly perToken: number;
  /** largest rounding error of the scores, relative to the largest score, if the kernel's inputs are exact */
  readonly rounding: number;
}

/** How the family runs. Verification uses only this part of the family. */
export interface Forward<D extends Dims = Dims> {
  /** elements in one row of each stream */
  streams(d: D): Readonly<Record<string, number>>;
  /** number of experts in a layer that has experts */
  experts(d: D): number;
  /** streams and parameters whose elements form blocks of `count`, such as a head or a group, and the name of a block */
  blocks(d: D): Readonly<Record<string, { readonly of: string; readonly count: number }>>;
  /** the streams with a row for each expert that a token chose */
  readonly dispatched: readonly string[];
  /** after the embedding and before the first layer: from "residual" to "out", which replaces "residual"; absent: no stage */
  readonly entry?: readonly Stage<D>[];
  /** from "residual" to "out"; the caller adds "out" to "residual" */
  block(kind: string, d: D): readonly Stage<D>[];
  /** from "residual" to "logits" */
  readonly head: readonly Stage<D>[];
  /**
   * Number that multiplies the logits; absent: 1. It belongs to the product of the head, because a stage before that product
   * would change the hidden state that is recorded, compared and calibrated there.
   */
  logitsFactor?(d: D): number;
  /**
   * Multi-token prediction. `start` runs before the blocks of a step: from "residual" and "words", the embedding of the next
   * tokens, to "out", which replaces "residual". `end` runs after the blocks, on "residual". Absent: no such layers.
   */
  readonly mtp?: { readonly start: readonly Stage<D>[]; readonly end: readonly Stage<D>[] };
  readonly natives: readonly Native<D>[];
  /** how parts are silenced in a run; absent: no part of such a model can be cut */
  masks?(d: D): Masks;
}

/**
 * Where the units of a model are in the streams of a run, so that those that pruning drops can be silenced. Written by hand and
 * apart from the rules of a cut, because it checks them.
 */
export interface Masks {
  /** by stream its elements in order: `size` for each of `count` units. Other streams have no such elements */
  readonly streams: Readonly<Record<string, readonly StreamUnits[]>>;
  /** by the stream that a norm makes: the units over which it takes its mean, and the name of its epsilon in the dims */
  readonly norms: Readonly<Record<string, { readonly unit: Unit; readonly eps: string }>>;
  /** equal groups of units that share inputs, such as the heads of a key and value head; 1: none */
  readonly groups: Readonly<Record<Unit, number>>;
}

export interface StreamUnits {
  readonly unit: Unit;
  readonly count: number;
  readonly size: number;
}

/** How a dialect runs: the stored tensors that each layer kind reads. */
export interface Native<D extends Dims = Dims> {
  readonly dialect: string;
  /**
   * Prefixes of the names of a layer in each stack, and of tensors that a prediction step has once. `{layer}` is the index
   * in the stack, `{outer}` the block or step, `{inner}` the number within it. In `step` they are those of the first layer at
   * the start and of the last layer at the end. Pipeline stages number their own layers and blocks from 0, and expert
   * parallel ranks their own experts. Absent `mtp` and `step`: the family has no prediction layers.
   */
  readonly prefix: {
    readonly main: string;
    /** another prefix with the same meaning */
    readonly also?: string;
    readonly mtp?: string;
    readonly step?: string;
  };
  /** by layer kind, and "mtpStart" and "mtpEnd" where the family has `mtp` */
  readonly uses: {
    /** produces "vocabulary", the token table [vocab, hidden] */
    readonly embedding: readonly Use<D>[];
    readonly head: readonly Use<D>[];
    readonly [kind: string]: readonly Use<D>[];
  };
}
