/** What a family is: an architecture's roles, how each dialect stores them, and how it runs. It knows nothing of files. */
import type { DType, Shape } from "../core/dtype.ts";
import type { Layout } from "../core/layout.ts";

export type LayerKind = "mamba" | "attention" | "mlp" | "moe";

/** What the forward pass depends on, whatever the dialect calls it. Canonical JSON of it enters the content root. */
export type Settings = Readonly<Record<string, unknown>>;

/** Widths by name, in elements. */
export type Dims = Readonly<Record<string, number>>;

/** One layer of one stack. `index` counts within the stack. */
export interface Layer {
  readonly stack: "main" | "mtp";
  readonly index: number;
  readonly kind: LayerKind;
}

/** What a tensor is in the model: one matrix, one scale. */
export interface RoleSpec {
  readonly role: string;
  /** layer kinds that have it; absent: once a model */
  readonly on?: readonly LayerKind[];
  /** one for each routed expert */
  readonly perExpert?: true;
  readonly shape: (d: Dims) => Shape;
  /** what a recipe speaks of: "matrix" is a projection that FP8 recipes may cast */
  readonly kind: "matrix" | "embedding" | "vector" | "state" | "router";
  /** not every model has it; decided from dims, or by being there */
  readonly when?: (d: Dims, layer: Layer) => boolean;
}

/** One stored tensor, said once: "this name is that expression of roles". The other direction is derived. */
export interface Rule {
  /** `{layer}` and `{expert}` stand for numbers; written so */
  readonly name: string;
  /** also read so */
  readonly also?: readonly string[];
  readonly on?: readonly LayerKind[];
  /** the only dtype this dialect stores it in */
  readonly dtype?: DType;
  readonly is: (d: Dims, at: { readonly expert: number; readonly tp: number; readonly of: number }) => Layout;
}

export interface Dialect {
  readonly id: string;
  readonly rules: readonly Rule[];
  /** prefix of a layer's names, `{layer}` being its number */
  readonly stacks: { readonly main: string; readonly mtp: string };
  /** accounted for, not moved */
  readonly drop: readonly { readonly match: RegExp; readonly why: string }[];
  /** Settings from this dialect's config. @throws CONFIG_INVALID */
  readonly settings: (config: Readonly<Record<string, unknown>>) => Settings;
}

/** Where a stored tensor's rows go, or which columns of a stream its columns eat. Written by hand, never from rules. */
export interface Use {
  readonly name: string;
  readonly on?: readonly LayerKind[];
  /** rows [from, from + count) of the stored tensor are [at, at + count) of the stream or parameter */
  readonly feeds: (d: Dims) => readonly {
    readonly stream: string;
    readonly at: number;
    readonly from: number;
    readonly count: number;
  }[];
}

/** A step of a block: named streams in, named streams out, drawing on named parameters. */
export type Stage =
  | { readonly op: "norm"; readonly from: string; readonly gain: string; readonly to: string }
  | { readonly op: "linear"; readonly from: string; readonly to: readonly string[] }
  | {
      readonly op: "conv";
      readonly from: string;
      readonly taps: string;
      readonly bias: string;
      readonly to: string;
    }
  | {
      readonly op: "ssd";
      readonly from: readonly [x: string, B: string, C: string, dt: string];
      readonly to: string;
    }
  | {
      readonly op: "gated-norm";
      readonly from: string;
      readonly gate: string;
      readonly gain: string;
      readonly to: string;
    }
  | {
      readonly op: "attention";
      readonly from: readonly [q: string, k: string, v: string];
      readonly to: string;
    }
  | { readonly op: "relu2"; readonly from: string; readonly to: string };

export interface Forward {
  /** width of every stream and parameter, elements a token (streams) or in all (parameters) */
  readonly widths: (d: Dims) => Readonly<Record<string, number>>;
  /** stages of a block, from "residual" to "out"; @throws UNSUPPORTED for kinds that cannot run yet */
  readonly block: (kind: LayerKind) => readonly Stage[];
  /** stages after the last layer, from "residual" to "logits" */
  readonly head: readonly Stage[];
  /** by dialect; `embedding` names the stored token table */
  readonly uses: Readonly<Record<string, { readonly embedding: string; readonly uses: readonly Use[] }>>;
}

/** Which roles are cast: those that `cast` names and nothing below keeps. A family's first recipe is FP8's default. */
export interface Recipe {
  readonly id: string;
  /** layers at each end of the main stack that keep their dtype */
  readonly keepEnds: number;
  /** roles cast, by name or by `prefix.*` */
  readonly cast: readonly string[];
  /** roles kept although `cast` names them */
  readonly keep?: readonly string[];
  /** layers of the main stack, from 0, that keep their dtype */
  readonly keepLayers?: readonly number[];
  /** Mamba layers directly before an attention layer keep their dtype */
  readonly keepMambaBeforeAttention?: boolean;
}

export interface Family {
  readonly id: string;
  claims(config: Readonly<Record<string, unknown>>): boolean;
  /** every layer, main stack first */
  layers(s: Settings): readonly Layer[];
  dims(s: Settings): Dims;
  readonly roles: readonly RoleSpec[];
  readonly dialects: readonly Dialect[];
  readonly recipes: readonly Recipe[];
  readonly forward: Forward;
}
