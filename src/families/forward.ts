/** How a family computes: the stages of a block, and the stored tensors that each dialect feeds to them. */
import type { Backend, Region } from "../../kernels/kernel.ts";
import type { Shape } from "../core/dtype.ts";
import type { Dims } from "./structure.ts";

/** Where a stored tensor's rows go: rows [from, from + count) are [at, at + count) of a stream or parameter. */
export interface OutputRows {
  readonly to: string;
  readonly at: number;
  readonly from: number;
  readonly count: number;
}

/** Which of its like a stored tensor is. */
export interface TensorPosition {
  /** tensor parallel rank; 0 where the tensor is whole */
  readonly tp: number;
  /** among all of the layer, whatever number its rank gives it; 0 where the layer has none */
  readonly expert: number;
  /** a stack of matrices counts as one, [all their rows, columns] */
  readonly shape: Shape;
}

/** A stored tensor's part in a block. Written by hand, never derived from rules: it is what checks them. */
export interface Use<D extends Dims = Dims> {
  /** after the layer's prefix; `{expert}` stands for a number */
  readonly name: string;
  /** other spellings: of all there are the first counts */
  readonly also?: readonly string[];
  /** A row that is padding goes nowhere, and so does what another rank has alike. */
  outputs(d: D, at: TensorPosition): readonly OutputRows[];
  /**
   * The element of the input stream that the first column multiplies, where ranks share a matrix out by columns: each
   * gives a partial sum, added up in the order of ranks. Default 0.
   */
  inputOffset?(d: D, at: TensorPosition): number;
}

/**
 * A step of a block, from streams ([rows, width], F32) to streams. Rows are tokens, but for streams that are dealt: a
 * row is then one token at one expert that it chose.
 *
 * - "linear" multiplies by the stored matrices whose rows feed its outputs, in bands
 * - "kernel" draws on whole parameters; a `choice` names experts, whole numbers [tokens, perToken]
 * - "dispatch" copies a token's row for each expert it chose, "experts" multiplies each by its expert's matrix, and "combine"
 *   adds up a token's rows under its weights [tokens, perToken]
 * - "concat" lays streams side by side
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
  /** by parameter, the inputs that multiply it: where all of one is zeros, the parameter changes nothing */
  readonly needs?: Readonly<Record<string, readonly string[]>>;
  /** of a stage without parameters: whether the kernel rightly makes nothing but zeros of these inputs */
  readonly silent?: (inputs: readonly Float32Array[]) => boolean;
  choice?(d: D): ExpertChoice;
  /** absent where a token's result depends on no other token */
  readonly carry?: Carry<D>;
  run(backend: Backend, d: D, rows: number, inputs: readonly Region[], output: Region): Promise<void>;
}

/**
 * What a stage needs of the tokens of earlier runs, to go on where they stopped.
 * - "rows": the last rows of streams that it reads, `most` of them or all there were. Its `run` is given those streams
 *   with `past` such rows before its own
 * - "state": so many elements, of one size however many tokens there were. Its `run` is given them before all other
 *   inputs, and leaves its own behind the rows of its output
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
  /** how far the scores it is made by may be off where what they are made of is right, relative to the largest */
  readonly rounding: number;
}

/** How the family runs; all that verification sees of it. */
export interface Forward<D extends Dims = Dims> {
  /** elements a row of each stream */
  streams(d: D): Readonly<Record<string, number>>;
  /** experts of a layer that has any */
  experts(d: D): number;
  /** elements of a stream or parameter that belong together, and their name: a head, a group; others stand alone */
  blocks(d: D): Readonly<Record<string, { readonly of: string; readonly count: number }>>;
  /** the streams whose rows are choices of an expert */
  readonly dispatched: readonly string[];
  /** from "residual" to "out", which is added to it */
  block(kind: string, d: D): readonly Stage<D>[];
  /** from "residual" to "logits" */
  readonly head: readonly Stage<D>[];
  /**
   * A prediction step: before its blocks from "residual" and "words", the embedding of the words that follow, to "out",
   * which takes the residual's place; after them from "residual" to its last norm.
   */
  readonly mtp?: { readonly start: readonly Stage<D>[]; readonly end: readonly Stage<D>[] };
  readonly natives: readonly Native<D>[];
}

/** A dialect's own way to run: which stored tensors each layer kind draws on. */
export interface Native<D extends Dims = Dims> {
  readonly dialect: string;
  /**
   * Of a layer's names, by stack, and of a prediction step's own. `{layer}` is the index in the stack, `{outer}` the
   * step and `{inner}` the place in it; a step's names are those of its first layer on the way in, its last on the way out.
   * Pipeline stages count their own layers and steps from 0, and expert parallel ranks their own experts.
   */
  readonly prefix: {
    readonly main: string;
    /** another spelling of the same */
    readonly also?: string;
    readonly mtp: string;
    readonly step: string;
  };
  /** by layer kind, and "mtpStart" and "mtpEnd" where the family has `mtp` */
  readonly uses: {
    /** feeds "vocabulary", the token table [vocab, hidden] */
    readonly embedding: readonly Use<D>[];
    readonly head: readonly Use<D>[];
    readonly [kind: string]: readonly Use<D>[];
  };
}
