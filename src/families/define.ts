/** What a family is: an architecture's roles, how each dialect stores them, and how it runs. It knows nothing of files. */
import type { Backend, Region } from "../../kernels/define.ts";
import type { Shape } from "../core/dtype.ts";
import type { Layout } from "../core/layout.ts";

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
  /** absent from models for which this is false */
  readonly when?: (d: Dims) => boolean;
}

/** One stored tensor, said once: "this name is that expression of roles". The other direction is derived. */
export interface Rule {
  /** written so; `{expert}` stands for a number; the stack's prefix goes before rules that have `on` or `mtp` */
  readonly name: string;
  /** also read so */
  readonly also?: readonly string[];
  readonly on?: readonly LayerKind[] | "every";
  readonly mtp?: "first" | "last";
  readonly is: Is;
}

/** `role` is the leaf of a role of the rule's own layer and expert. */
export type Is = (role: (name: string) => Layout, d: Dims) => Layout;

export interface Dialect {
  readonly id: string;
  readonly rules: readonly Rule[];
  /** prefix of a layer's names, `{layer}` being its index in the stack */
  readonly stacks: { readonly main: string; readonly mtp: string };
  /** libraries that load the dialect may hold what is stored as `stored…` under `loaded…` */
  readonly renamed?: { readonly stored: string; readonly loaded: string };
  /** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
  settings(config: Config): Settings;
}

/** Where a stored tensor's rows go: rows [from, from + count) are [at, at + count) of a stream or parameter. */
export interface Feed {
  readonly to: string;
  readonly at: number;
  readonly from: number;
  readonly count: number;
}

/** A stored tensor's part in a block. Written by hand, never derived from rules: it is what checks them. */
export interface Use {
  /** after the layer's prefix */
  readonly name: string;
  readonly feeds: (d: Dims) => readonly Feed[];
}

/**
 * A step of a block, from streams ([tokens, width], F32) to streams. "linear" multiplies by the stored matrices
 * whose rows feed its outputs, in bands; "kernel" draws on whole parameters.
 */
export type Stage =
  | { readonly op: "linear"; readonly from: string; readonly to: readonly string[] }
  | {
      readonly op: "kernel";
      readonly from: readonly string[];
      readonly parameters: readonly string[];
      readonly to: string;
      run(
        backend: Backend,
        d: Dims,
        tokens: number,
        inputs: readonly Region[],
        output: Region,
      ): Promise<void>;
    };

/** How the family runs; all that verification sees of it. */
export interface Forward {
  /** elements a token of each stream */
  streams(d: Dims): Readonly<Record<string, number>>;
  /** elements of a stream or parameter that belong together, and their name: a head, a group; others stand alone */
  blocks(d: Dims): Readonly<Record<string, { readonly of: string; readonly count: number }>>;
  /** from "residual" to "out", which is added to it. @throws UNSUPPORTED for a kind that cannot run yet */
  block(kind: LayerKind): readonly Stage[];
  /** from "residual" to "logits" */
  readonly head: readonly Stage[];
  readonly natives: readonly Native[];
}

/** A dialect's own way to run: which stored tensors each layer kind draws on. */
export interface Native {
  readonly dialect: string;
  /** the stored token table [vocab, hidden], by any of these names */
  readonly embedding: readonly string[];
  readonly prefix: string;
  readonly uses: Readonly<Record<LayerKind | "head", readonly Use[]>>;
}

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
