/** What a config describes: settings, dims, layers and roles of a model, and how it is divided among ranks. */
import type { Shape } from "../core/dtype.ts";

/** The config record of a checkpoint as parsed from its file. */
export type Config = Readonly<Record<string, unknown>>;

/** All values that the forward pass depends on, under names of our own. Their canonical JSON is part of the content root. */
export type Settings = Readonly<Record<string, string | number | boolean | readonly number[]>>;

/**
 * Widths and constants of a model. Each family has its own type `D` that extends this one. Code outside the family
 * holds its parts as `Family<Dims>`: it passes to them only the dims that the same family made. The members that take
 * `D` are therefore declared as methods, whose parameters TypeScript compares in both directions.
 */
export interface Dims {
  readonly vocab: number;
}

/**
 * One layer of one stack: a norm, a mixer or an MLP, and the addition to the stream. `index` is its number in the stack. Names
 * may give one number to several layers: a block of a dense model is attention and MLP, and a step of multi-token
 * prediction (mtp) has a pattern of its own. Such a block has `of` layers, and this one is number `inner` of them.
 */
export interface Layer {
  readonly stack: "main" | "mtp";
  readonly index: number;
  /** one of the kinds that the family lists */
  readonly kind: string;
  readonly inner: number;
  readonly of: number;
  /** of a prediction layer: number of layers in the main stack */
  readonly after?: number;
}

/** What a tensor is in the model: one matrix, which has one scale. */
export interface RoleSpec<D extends Dims = Dims> {
  readonly role: string;
  /** layer kinds that have the role, or "every"; absent: the model has it once, outside the layers */
  readonly on?: readonly string[] | "every";
  /** only the first or the last layer of a prediction step has it */
  readonly mtp?: "first" | "last";
  /** how many of it a layer has, one for each expert; absent: one */
  experts?(d: D): number;
  shape(d: D): Shape;
  /** for recipes; a "matrix" is a projection; "state" and "router" are cast only if a recipe file names them */
  readonly kind: "matrix" | "embedding" | "vector" | "state" | "router";
  /** rows of the parts that one matrix joins, by name, in their order */
  parts?(d: D): Readonly<Record<string, number>>;
  /** inference engines join the roles of a layer or an expert with the same value here; tools give them one FP8 scale */
  readonly fused?: string;
  /** the part of a KV cache that keeps its product, and the stream of the forward pass that holds what is kept */
  readonly cached?: { readonly as: "k" | "v"; stream(d: D): string };
  /** models for which this is false do not have the role */
  when?(d: D): boolean;
  /** the role whose tensor it shares if the config ties the two; a checkpoint may then store a copy or leave it out */
  readonly tiedTo?: string;
}

/** How a model is divided among ranks. */
export interface Parallelism {
  readonly tp: number;
  /** number of ranks that share the experts; each expert's matrices are cut into `expertTp` parts */
  readonly ep: number;
  readonly expertTp: number;
  /** layers of each stack that each pipeline stage holds */
  readonly stages: readonly { readonly main: number; readonly mtp: number }[];
  /** rows of the token table and of the head over all ranks, padding included */
  readonly rows: number;
}

/** A model as described by its settings. */
export interface Structure<D extends Dims = Dims> {
  readonly settings: Settings;
  readonly dims: D;
  readonly layers: readonly Layer[];
}

/** The unique name of a role in one model: "main.3.ssm.in", "main.4.moe.up.7", "embed". */
export function roleKey(role: string, layer: Layer | null, expert: number | null): string {
  const prefix = layer === null ? "" : `${layer.stack}.${layer.index}.`;
  return `${prefix}${role}${expert === null ? "" : `.${expert}`}`;
}
