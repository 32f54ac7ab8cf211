/** Three levels of knowledge about a model: from its config, from one checkpoint, and with the location of each role in its tensors. */
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { countOf, type Shape } from "../core/dtype.ts";
import type { Watch } from "../core/events.ts";
import { type ElementSource, roleSource } from "../core/gather.ts";
import { type Layout, movesOf } from "../core/mapping/layout.ts";
import type { Move } from "../core/mapping/moves.ts";
import type { Dialect, ParsedConfig, Rule } from "./dialect.ts";
import type { Family } from "./family.ts";
import type { Dims, Layer, Parallelism, RoleSpec, Settings } from "./structure.ts";

/** One role of one model. */
export interface Role {
  readonly key: string;
  readonly spec: RoleSpec;
  readonly layer: Layer | null;
  /** number of its expert in the layer; null if it belongs to no expert */
  readonly expert: number | null;
  readonly shape: Shape;
}

/** A model as described by its config, before any weight file is opened. */
export interface Model {
  readonly family: Family;
  readonly settings: Settings;
  readonly dims: Dims;
  readonly layers: readonly Layer[];
  /** in execution order */
  readonly roles: ReadonlyMap<string, Role>;
}

/** A model as described by one checkpoint. */
export interface RecognisedModel extends Model {
  readonly dialect: Dialect;
  readonly parallelism: Parallelism;
  readonly passthrough: ParsedConfig["passthrough"];
  /** which values were derived instead of read, as text */
  readonly notes: readonly string[];
  /** the config says that two roles share one tensor */
  readonly tied: boolean;
}

/** A stored tensor that must equal another tensor, `of`. Only `of` is converted. */
export interface Replica {
  readonly tensor: string;
  readonly of: string;
  /** not the copy of another rank: the config ties the two roles, and both are stored */
  readonly tied?: true;
  /** not the copy of another rank either: its software stored one tensor of the model under two names */
  readonly twice?: true;
}

/** Entries that are not part of the model and are left out, and the reason. */
export interface IgnoredEntries {
  readonly why: string;
  readonly names: readonly string[];
}

/** A stored tensor whose numbers are a function of its role's values: see `Rule.stores` and `Rule.times`. */
export type TransformedTensor =
  | { readonly tensor: Tensor; readonly stores: NonNullable<Rule["stores"]> }
  | { readonly tensor: Tensor; readonly times: readonly ElementFactor[] };

/** A number that multiplies the values of elements [lo, hi). */
export interface ElementFactor {
  readonly lo: number;
  readonly hi: number;
  readonly factor: number;
}

/** A model together with the location of its roles in one checkpoint. */
export interface MatchedModel extends RecognisedModel {
  readonly checkpoint: Checkpoint;
  /** by `tensorKey`; the fields below use the same keys */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** for each role the moves from stored tensors */
  readonly roleSources: ReadonlyMap<string, readonly Move[]>;
  /**
   * Of a cut model, for a role that has fewer rows and fewer columns than in its source: the rows that it takes, as a layout
   * over a leaf with its own key. `roleSources` then build that leaf.
   */
  readonly takenRows?: ReadonlyMap<string, Layout>;
  /** for each stored tensor the roles that it holds */
  readonly holds: ReadonlyMap<string, readonly string[]>;
  /** the stored tensors whose numbers are a function of their role's values: see `Rule.stores` and `Rule.times` */
  readonly transformed: ReadonlyMap<string, TransformedTensor>;
  readonly replicas: readonly Replica[];
  readonly dropped: readonly IgnoredEntries[];
}

/** The elements of a role, from stored tensors. */
export function roleElements(
  { roleSources, takenRows }: MatchedModel,
  { key, shape }: Pick<Role, "key" | "shape">,
): ElementSource {
  const rows = takenRows?.get(key);
  return rows === undefined
    ? roleSource(key, countOf(shape), roleSources)
    : { moves: movesOf(rows), roles: roleSources };
}

/** @returns a function that emits an event when the first role of a layer of the main stack is done */
export function layerReporter(model: MatchedModel, watch: Watch): (role: Role | null) => void {
  const of = mainLayers(model).length;
  const begun = new Set<Layer>();
  return (role) => {
    const layer = role?.layer ?? null;
    if (layer === null || layer.stack !== "main" || begun.has(layer)) return;
    begun.add(layer);
    watch({ type: "layer", layer: layer.index, of, kind: layer.kind });
  };
}

/** The layers of the main stack, in order. */
export function mainLayers({ layers }: MatchedModel): readonly Layer[] {
  return layers.filter(({ stack }) => stack === "main");
}
