/** What a family is: an architecture's roles, how each dialect stores them, and how it runs. It knows nothing of files. */
import type { Backend, Region } from "../../kernels/kernel.ts";
import type { Tensor } from "../core/checkpoint.ts";
import type { Shape } from "../core/dtype.ts";
import type { Layout } from "../core/mapping/layout.ts";

export type Config = Readonly<Record<string, unknown>>;
export type LayerKind = "mamba" | "attention" | "mlp" | "moe";

/** What the forward pass depends on, whatever the dialect calls it. Canonical JSON of it enters the content root. */
export type Settings = Readonly<Record<string, string | number | boolean | readonly number[]>>;

/** Widths and constants by name. */
export type Dims = Readonly<Record<string, number>>;

/** One layer of one stack. `index` counts within the stack; `inner` and `of` place it in a prediction step (mtp). */
export interface Layer {
  readonly stack: "main" | "mtp";
  readonly index: number;
  readonly kind: LayerKind;
  readonly inner: number;
  readonly of: number;
}

/** What a tensor is in the model: one matrix, one scale. */
export interface RoleSpec {
  readonly role: string;
  /** layer kinds that have it, or "every"; absent: once a model */
  readonly on?: readonly LayerKind[] | "every";
  /** only in the mtp stack's first or last layer of a step */
  readonly mtp?: "first" | "last";
  /** how many there are in a layer, numbered; absent: one */
  readonly experts?: (d: Dims) => number;
  readonly shape: (d: Dims) => Shape;
  /** what a recipe speaks of; a "matrix" is a projection, "state" and "router" are never narrowed unasked */
  readonly kind: "matrix" | "embedding" | "vector" | "state" | "router";
  /** engines join the roles of a layer that say the same here into one tensor, and tools give them one FP8 scale */
  readonly fused?: string;
  /** absent from models for which this is false */
  readonly when?: (d: Dims) => boolean;
  /** the role whose tensor it shares where a config ties the two: it may then be stored, as a copy, or not */
  readonly tiedTo?: string;
}

/** One stored tensor, said once: "this name is that expression of roles". The other direction is derived. */
export interface Rule {
  /** written so; `{expert}` stands for a number; the stack's prefix goes before rules that have `on` or `mtp` */
  readonly name: string;
  /** also read so */
  readonly also?: readonly string[];
  readonly on?: readonly LayerKind[] | "every";
  readonly mtp?: "first" | "last";
  /** read where it is found, never written: another cut of what other rules say */
  readonly readOnly?: true;
  /** which pipeline stage holds what is outside the layers; "mtp": the last again, where it predicts more */
  readonly stage?: "first" | "last" | "mtp";
  readonly is: Is;
}

/** `role` is the leaf of a role of the rule's own layer, and of the given or the rule's own expert. */
export type Is = (role: (name: string, expert?: number) => Layout, d: Dims, at: ShardPosition) => Layout;

/** Which part of the model a stored tensor is: all of it where nothing is cut. */
export interface ShardPosition {
  /** part `tp` of `of` */
  readonly tp: number;
  readonly of: number;
  /** an expert's own matrices may be cut otherwise */
  readonly expertTp: number;
  readonly expertOf: number;
  /** rows of the token table and of the head over all parts, padding included */
  readonly rows: number;
}

/** How a model is cut among ranks. */
export interface Parallelism {
  readonly tp: number;
  /** experts are dealt out among so many ranks, each in `expertTp` parts */
  readonly ep: number;
  readonly expertTp: number;
  /** layers of each stack that each pipeline stage holds */
  readonly stages: readonly { readonly main: number; readonly mtp: number }[];
  /** rows of the token table and of the head, padding included */
  readonly rows: number;
}

/** What a checkpoint shows of itself, for what its config leaves out. */
export interface ObservedFacts {
  readonly tensors: readonly Pick<Tensor, "name" | "shape" | "rank">[];
  /** the files that the tensors lie in, where they are those of a folder of safetensors */
  readonly files?: readonly string[];
  /** true size of the vocabulary, from elsewhere than the config */
  readonly vocab?: number;
  /** settings of a like model */
  readonly like?: Settings;
}

/** What a config says that the forward pass does not depend on, and that another software's record says too. */
export type Passthrough = Readonly<Record<string, number | boolean>>;

/** A config understood; `notes` tell in words what was not said but inferred. */
export interface ParsedConfig {
  readonly settings: Settings;
  readonly passthrough: Passthrough;
  readonly notes: readonly string[];
  /** roles that may be tied to another are */
  readonly tied?: boolean;
}

/** What a reader of a config should know of keys that change no setting. */
export interface KeyRemark {
  /**
   * `config-key-unknown`: no table has the key, and engines may obey it; `config-precision`: the function is computed
   * with another precision; `config-null`, `architectures-other`: some engines refuse the config, or choose another class
   */
  readonly rule: "config-key-unknown" | "config-precision" | "config-null" | "architectures-other";
  readonly severity: "warning" | "note";
  readonly message: string;
}

/** What a config record for a destination is made from. */
export interface ConfigInput extends Pick<ParsedConfig, "settings" | "passthrough"> {
  readonly software: string;
  readonly parallelism: Parallelism;
  /** of the token table, as torch calls it: "bfloat16" */
  readonly dtype: string;
}

/** A model as its settings describe it. */
export interface Structure {
  readonly settings: Settings;
  readonly dims: Dims;
  readonly layers: readonly Layer[];
}

export interface Dialect {
  readonly id: string;
  readonly rules: readonly Rule[];
  readonly stacks: Stacks;
  /** a tensor belongs to a rank, and each rank counts its own layers and experts from 0 */
  readonly ranked?: true;
  /** libraries that load the dialect may hold what is stored as `stored…` under `loaded…`; it is read by either name */
  readonly renamed?: { readonly stored: string; readonly loaded: string };
  /** what training leaves beside the weights: accounted for, not moved */
  readonly drop: readonly { readonly match: RegExp; readonly why: string }[];
  /** names of the empty entries without which its loaders refuse */
  objects(model: Structure): readonly string[];
  /** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
  settings(config: Config, seen: ObservedFacts): ParsedConfig;
  /** what the settings do not show of a config that was read */
  keyRemarks(config: Config): readonly KeyRemark[];
  /** what the key says is compared as a setting, or must be one value; absent: no key is known as such */
  isSettingKey?(key: string): boolean;
  /** the config key that says a setting; undefined where several do, or none */
  keyOf?(setting: string): string | undefined;
  /** the vocabulary, where the config is sure of it; undefined: a tokenizer or whoever asks must say it */
  vocabulary(config: Config): number | undefined;
  /** how a stored checkpoint is cut. @throws SHAPE_MISMATCH */
  parallelism(seen: ObservedFacts, model: Structure, config: Config): Parallelism;
  /** how it is cut for so many ranks. @throws PLAN_IMPOSSIBLE where heads, groups or widths do not divide */
  cut(model: Structure, ranks: { readonly tp: number; readonly pp: number }): Parallelism;
  /**
   * The config record that a destination's software reads; `notes` say what it cannot do with it.
   *
   * @throws PLAN_IMPOSSIBLE where it would run another model
   */
  config(model: ConfigInput): { readonly config: Config; readonly notes: readonly string[] };
}

/** Prefixes of a layer's names: `{layer}` is its index in the stack; in the mtp stack `{outer}` is its step. */
export interface Stacks {
  readonly main: string;
  /** `{inner}`: the place within the step */
  readonly mtp: string;
  /** of what a step has once; default: the layer's own */
  readonly step?: string;
}

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
export interface Use {
  /** after the layer's prefix; `{expert}` stands for a number */
  readonly name: string;
  /** other spellings: of all there are the first counts */
  readonly also?: readonly string[];
  /** A row that is padding goes nowhere, and so does what another rank has alike. */
  readonly outputs: (d: Dims, at: TensorPosition) => readonly OutputRows[];
  /**
   * The element of the input stream that the first column multiplies, where ranks share a matrix out by columns: each
   * gives a partial sum, added up in the order of ranks. Default 0.
   */
  readonly inputOffset?: (d: Dims, at: TensorPosition) => number;
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
export type Stage =
  | { readonly op: "linear"; readonly from: string; readonly to: readonly string[] }
  | KernelStage
  | { readonly op: "dispatch"; readonly from: string; readonly to: string }
  | { readonly op: "experts"; readonly from: string; readonly to: string }
  | { readonly op: "combine"; readonly from: string; readonly weights: string; readonly to: string }
  | { readonly op: "concat"; readonly from: readonly [string, string]; readonly to: string };

export interface KernelStage {
  readonly op: "kernel";
  readonly from: readonly string[];
  readonly parameters: readonly string[];
  readonly to: string;
  /** by parameter, the inputs that multiply it: where all of one is zeros, the parameter changes nothing */
  readonly needs?: Readonly<Record<string, readonly string[]>>;
  /** of a stage without parameters: whether the kernel rightly makes nothing but zeros of these inputs */
  readonly silent?: (inputs: readonly Float32Array[]) => boolean;
  readonly choice?: (d: Dims) => ExpertChoice;
  /** absent where a token's result depends on no other token */
  readonly carry?: Carry;
  run(backend: Backend, d: Dims, rows: number, inputs: readonly Region[], output: Region): Promise<void>;
}

/**
 * What a stage needs of the tokens of earlier runs, to go on where they stopped.
 * - "rows": the last rows of streams that it reads, `most` of them or all there were. Its `run` is given those streams
 *   with `past` such rows before its own
 * - "state": so many elements, of one size however many tokens there were. Its `run` is given them before all other
 *   inputs, and leaves its own behind the rows of its output
 */
export type Carry =
  | {
      readonly keeps: "rows";
      readonly of: readonly string[];
      readonly most?: (d: Dims) => number;
      run(
        backend: Backend,
        d: Dims,
        rows: number,
        past: number,
        inputs: readonly Region[],
        output: Region,
      ): Promise<void>;
    }
  | {
      readonly keeps: "state";
      readonly elements: (d: Dims) => number;
      run(backend: Backend, d: Dims, rows: number, inputs: readonly Region[], output: Region): Promise<void>;
    };

export interface ExpertChoice {
  readonly experts: number;
  readonly perToken: number;
  /** how far the scores it is made by may be off where what they are made of is right, relative to the largest */
  readonly rounding: number;
}

/** How the family runs; all that verification sees of it. */
export interface Forward {
  /** elements a row of each stream */
  streams(d: Dims): Readonly<Record<string, number>>;
  /** experts of a layer that has any */
  experts(d: Dims): number;
  /** elements of a stream or parameter that belong together, and their name: a head, a group; others stand alone */
  blocks(d: Dims): Readonly<Record<string, { readonly of: string; readonly count: number }>>;
  /** the streams whose rows are choices of an expert */
  readonly dispatched: readonly string[];
  /** from "residual" to "out", which is added to it */
  block(kind: LayerKind, d: Dims): readonly Stage[];
  /** from "residual" to "logits" */
  readonly head: readonly Stage[];
  /**
   * A prediction step: before its blocks from "residual" and "words", the embedding of the words that follow, to "out",
   * which takes the residual's place; after them from "residual" to its last norm.
   */
  readonly mtp: { readonly start: readonly Stage[]; readonly end: readonly Stage[] };
  readonly natives: readonly Native[];
}

/** A dialect's own way to run: which stored tensors each layer kind draws on. */
export interface Native {
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
  /** "embedding" feeds "vocabulary", the token table [vocab, hidden] */
  readonly uses: Readonly<Record<UseKind, readonly Use[]>>;
}

export type UseKind = LayerKind | "embedding" | "head" | "mtpStart" | "mtpEnd";

/** Which roles are cast. `keep` wins over `cast`; what neither names is kept. */
export interface Recipe {
  readonly id: string;
  /** layers at each end of the main stack that are kept */
  readonly keepEnds: number;
  /** roles by name, or `prefix.*` */
  readonly cast: readonly string[];
  readonly keep?: readonly string[];
  /** main-stack layers that are kept */
  readonly keepLayers?: readonly number[];
  /** keep the mamba block directly before each attention block, as the 30B release does */
  readonly keepMambaBeforeAttention?: boolean;
}

export interface Family {
  readonly id: string;
  /** @throws UNSUPPORTED for a relative that must not be taken for this family */
  claims(config: Config): boolean;
  /** the layer pattern, a letter a layer */
  pattern(s: Settings): string;
  layers(s: Settings): readonly Layer[];
  dims(s: Settings): Dims;
  readonly roles: readonly RoleSpec[];
  readonly dialects: readonly Dialect[];
  readonly recipes: readonly Recipe[];
  readonly forward: Forward;
}

/** A role of one model by name: "main.3.ssm.in", "main.4.moe.up.7", "embed". */
export function roleKey(role: string, layer: Layer | null, expert: number | null): string {
  const place = layer === null ? "" : `${layer.stack}.${layer.index}.`;
  return `${place}${role}${expert === null ? "" : `.${expert}`}`;
}
