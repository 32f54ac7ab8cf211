/** A model before a weight is read: its settings, widths, layers and roles, and how ranks share it. */
import type { Shape } from "../core/dtype.ts";

export type Config = Readonly<Record<string, unknown>>;

/** What the forward pass depends on, whatever the dialect calls it. Canonical JSON of it enters the content root. */
export type Settings = Readonly<Record<string, string | number | boolean | readonly number[]>>;

/**
 * Widths and constants of a model. Each family has its own type `D` that extends this one. Code outside the family
 * holds its parts as `Family<Dims>`: it passes to them only the dims that the same family made. The members that take
 * `D` are therefore declared as methods, whose parameters TypeScript compares in both directions.
 */
export interface Dims {
  readonly vocab: number;
}

/** One layer of one stack. `index` counts within the stack; `inner` and `of` place it in a prediction step (mtp). */
export interface Layer {
  readonly stack: "main" | "mtp";
  readonly index: number;
  /** one of the kinds that the family lists */
  readonly kind: string;
  readonly inner: number;
  readonly of: number;
}

/** What a tensor is in the model: one matrix, one scale. */
export interface RoleSpec<D extends Dims = Dims> {
  readonly role: string;
  /** layer kinds that have it, or "every"; absent: once a model */
  readonly on?: readonly string[] | "every";
  /** only in the mtp stack's first or last layer of a step */
  readonly mtp?: "first" | "last";
  /** how many there are in a layer, numbered; absent: one */
  experts?(d: D): number;
  shape(d: D): Shape;
  /** what a recipe speaks of; a "matrix" is a projection, "state" and "router" are never narrowed unasked */
  readonly kind: "matrix" | "embedding" | "vector" | "state" | "router";
  /** engines join the roles of a layer that say the same here into one tensor, and tools give them one FP8 scale */
  readonly fused?: string;
  /** absent from models for which this is false */
  when?(d: D): boolean;
  /** the role whose tensor it shares where a config ties the two: it may then be stored, as a copy, or not */
  readonly tiedTo?: string;
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

/** A model as its settings describe it. */
export interface Structure<D extends Dims = Dims> {
  readonly settings: Settings;
  readonly dims: D;
  readonly layers: readonly Layer[];
}

/** A role of one model by name: "main.3.ssm.in", "main.4.moe.up.7", "embed". */
export function roleKey(role: string, layer: Layer | null, expert: number | null): string {
  const place = layer === null ? "" : `${layer.stack}.${layer.index}.`;
  return `${place}${role}${expert === null ? "" : `.${expert}`}`;
}
