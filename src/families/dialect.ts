/** How one software names and cuts a family's tensors and writes its config. */
import type { Tensor } from "../core/checkpoint.ts";
import type { Layout } from "../core/mapping/layout.ts";
import type { Config, Dims, Parallelism, Settings, Structure } from "./structure.ts";

/** One stored tensor, said once: "this name is that expression of roles". The other direction is derived. */
export interface Rule<D extends Dims = Dims> {
  /** written so; `{expert}` stands for a number; the stack's prefix goes before rules that have `on` or `mtp` */
  readonly name: string;
  /** also read so */
  readonly also?: readonly string[];
  readonly on?: readonly string[] | "every";
  readonly mtp?: "first" | "last";
  /** read where it is found, never written: another cut of what other rules say */
  readonly readOnly?: true;
  /** which pipeline stage holds what is outside the layers; "mtp": the last again, where it predicts more */
  readonly stage?: "first" | "last" | "mtp";
  /** `role` is the leaf of a role of the rule's own layer, and of the given or the rule's own expert. */
  is(role: (name: string, expert?: number) => Layout, d: D, at: ShardPosition): Layout;
}

export type Is<D extends Dims = Dims> = Rule<D>["is"];

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

export interface Dialect<D extends Dims = Dims> {
  readonly id: string;
  readonly rules: readonly Rule<D>[];
  readonly stacks: Stacks;
  /** a tensor belongs to a rank, and each rank counts its own layers and experts from 0 */
  readonly ranked?: true;
  /** libraries that load the dialect may hold what is stored as `stored…` under `loaded…`; it is read by either name */
  readonly renamed?: { readonly stored: string; readonly loaded: string };
  /** what training leaves beside the weights: accounted for, not moved */
  readonly drop: readonly { readonly match: RegExp; readonly why: string }[];
  /** names of the empty entries without which its loaders refuse */
  objects(model: Structure<D>): readonly string[];
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
  parallelism(seen: ObservedFacts, model: Structure<D>, config: Config): Parallelism;
  /** how it is cut for so many ranks. @throws PLAN_IMPOSSIBLE where heads, groups or widths do not divide */
  cut(model: Structure<D>, ranks: { readonly tp: number; readonly pp: number }): Parallelism;
  /**
   * The config record that a destination's software reads; `notes` say what it cannot do with it.
   *
   * @throws PLAN_IMPOSSIBLE where it would run another model
   */
  config(model: ConfigInput): { readonly config: Config; readonly notes: readonly string[] };
}

/** Prefixes of a layer's names: `{layer}` is its index in the stack; in the mtp stack `{outer}` is its step. */
interface Stacks {
  readonly main: string;
  /** `{inner}`: the place within the step */
  readonly mtp: string;
  /** of what a step has once; default: the layer's own */
  readonly step?: string;
}
