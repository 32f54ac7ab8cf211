/** A dialect: how a software names and divides the tensors of a family, and how it writes its config. */
import type { Tensor } from "../core/checkpoint.ts";
import type { Shape } from "../core/dtype.ts";
import type { Layout } from "../core/mapping/layout.ts";
import type { ConfigCut } from "./prunable.ts";
import type { Config, Dims, Parallelism, Settings, Structure } from "./structure.ts";

/** A number that multiplies the values of `rows` rows. */
interface RowFactor {
  readonly rows: number;
  readonly factor: number;
}

/** One stored tensor: its name, and the expression of roles that it holds. The inverse is derived from it. */
export interface Rule<D extends Dims = Dims> {
  /** name when written; `{expert}` stands for a number; rules with `on` or `mtp` get the prefix of their stack before it */
  readonly name: string;
  /** other names that are read */
  readonly also?: readonly string[];
  readonly on?: readonly string[] | "every";
  /** in prediction layers only the first or the last has it; "never": none has it */
  readonly mtp?: "first" | "last" | "never";
  /** the only element type that its software reads; absent: any type */
  readonly onlyDtype?: "F32";
  /** published checkpoints of other dialects have that type too; else it was widened for this dialect */
  readonly keepsDtype?: true;
  /** what is stored of a value v of the role, in F32; absent: v. "-exp": -exp(v); "+1": v + 1 */
  readonly stores?: "-exp" | "+1";
  /**
   * Numbers by which values are multiplied where they are stored, in F32: one for the tensor, or one for each run of rows, in
   * their order. A number is not 0. Undefined, or absent: values are stored as they are
   */
  times?(d: D): number | readonly RowFactor[] | undefined;
  /** read if it exists but never written: the same roles as other rules, divided differently */
  readonly readOnly?: true;
  /** models for which this is false do not have the tensor */
  when?(d: D): boolean;
  /** another rule has the same roles: the tensor must be its copy */
  readonly copy?: true;
  /**
   * Pipeline stage of a tensor outside the layers. "lastOfSeveral": the last one, if it is not the first; "mtp": the same, if
   * it has prediction layers.
   */
  readonly stage?: "first" | "last" | "lastOfSeveral" | "mtp";
  /** `role` gives the leaf of a role in the layer of the rule, for the given expert or that of the rule. */
  is(role: (name: string, expert?: number) => Layout, d: D, at: ShardPosition): Layout;
}

export type Is<D extends Dims = Dims> = Rule<D>["is"];

/** The part of the model that a stored tensor holds. In dialects without ranks it is the whole. */
export interface ShardPosition {
  /** part `tp` of `of` */
  readonly tp: number;
  readonly of: number;
  /** the same for the matrices of an expert */
  readonly expertTp: number;
  readonly expertOf: number;
  /** rows of the token table and of the head over all parts, padding included */
  readonly rows: number;
}

/** Facts read from the checkpoint itself, for settings that its config does not contain. */
export interface ObservedFacts {
  readonly tensors: readonly Pick<Tensor, "name" | "shape" | "rank">[];
  /** files of the tensors, if the checkpoint is a folder of safetensors */
  readonly files?: readonly string[];
  /** true size of the vocabulary, from another source than the config */
  readonly vocab?: number;
  /** settings of a similar model that the user named */
  readonly like?: Settings;
  /** names of the tensors that the dialect leaves out; `tensors` does not have them */
  readonly ignored?: readonly string[];
  /** values of some of the `ignored` tensors, by name; a planned checkpoint has none */
  readonly constants?: ReadonlyMap<string, Float32Array>;
}

/** A tensor that holds no role, because its values follow from the settings. It is F32. */
export interface ConstantTensor {
  readonly name: string;
  readonly shape: Shape;
  readonly values: Float32Array;
}

/** Values of a config that the forward pass does not depend on, but that the configs of other dialects contain as well. */
export type Passthrough = Readonly<Record<string, number | boolean | string>>;

/** What was read from a config. `notes` say which values were derived instead of read. */
export interface ParsedConfig {
  readonly settings: Settings;
  readonly passthrough: Passthrough;
  readonly notes: readonly string[];
  /** the roles with `tiedTo` are tied */
  readonly tied?: boolean;
}

/** A finding about config keys that change no setting. */
export interface KeyRemark {
  /**
   * `config-key-unknown`: the key is in no table, and engines may use it; `config-precision`: the function is computed
   * with another precision; `config-null`, `architectures-other`: some engines refuse the config or choose another class
   */
  readonly rule: "config-key-unknown" | "config-precision" | "config-null" | "architectures-other";
  readonly severity: "warning" | "note";
  readonly message: string;
}

/** Input of a config writer. */
export interface ConfigInput extends Pick<ParsedConfig, "settings" | "passthrough"> {
  readonly software: string;
  readonly parallelism: Parallelism;
  /** dtype of the token table, by its name in torch: "bfloat16" */
  readonly dtype: string;
}

export interface Dialect<D extends Dims = Dims> {
  readonly id: string;
  /** id of the dialect of whose checkpoints it reads some: those whose config `reads` accepts; it is never written */
  readonly variantOf?: string;
  reads?(config: Config): boolean;
  readonly rules: readonly Rule<D>[];
  readonly stacks: Stacks;
  /** each tensor belongs to a rank, and each rank numbers its own layers and experts from 0 */
  readonly ranked?: true;
  /** names that begin with `stored` begin with `loaded` inside some libraries; tensors are read under both names */
  readonly renamed?: { readonly stored: string; readonly loaded: string };
  /** tensors that training stores beside the weights: they are reported and not converted */
  readonly drop: readonly { readonly match: RegExp; readonly why: string }[];
  /** whether its software stores each module of all layers as one tensor; absent: it never does */
  stacksLayers?(model: Structure<D>): boolean;
  /** tensors that its loaders require beside those of roles; absent: none */
  constants?(model: Structure<D>): readonly ConstantTensor[];
  /** names of the empty entries that its loaders require */
  objects(model: Structure<D>): readonly string[];
  /** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
  settings(config: Config, seen: ObservedFacts): ParsedConfig;
  /** findings about keys that change no setting */
  keyRemarks(config: Config): readonly KeyRemark[];
  /** whether the key is a setting or must have one value; absent: unknown for every key */
  isSettingKey?(key: string): boolean;
  /** whether no forward pass depends on the key, whatever its value; absent: unknown for every key */
  isUnreadKey?(key: string): boolean;
  /** the config key of a setting; undefined if there are several or none */
  keyOf?(setting: string): string | undefined;
  /** the keys of the config that a cut changes, with their new values; absent: its config is written anew */
  prunedKeys?(config: Config, cut: ConfigCut): Config;
  /** size of the vocabulary, if the config is reliable; undefined: the tokenizer or the user must give it */
  vocabulary(config: Config): number | undefined;
  /** how a stored checkpoint is divided. @throws SHAPE_MISMATCH */
  parallelism(seen: ObservedFacts, model: Structure<D>, config: Config): Parallelism;
  /** how to divide a model among ranks. @throws PLAN_IMPOSSIBLE if heads, groups or widths do not divide evenly */
  cut(model: Structure<D>, ranks: { readonly tp: number; readonly pp: number }): Parallelism;
  /**
   * The config record for the software of a destination. `notes` say which of its versions cannot use it.
   *
   * @throws PLAN_IMPOSSIBLE if that software would compute another function
   */
  config(model: ConfigInput): { readonly config: Config; readonly notes: readonly string[] };
}

/** Prefixes of the names of a layer: `{layer}` is its index in the stack, `{outer}` that of its block or prediction step. */
interface Stacks {
  readonly main: string;
  /**
   * `{inner}`: number within the step; `{after}`: number of the step, counted on from the layers of the main stack; absent if
   * the family has no prediction layers
   */
  readonly mtp?: string;
  /** for tensors that a step has once; default: `mtp` */
  readonly step?: string;
}
