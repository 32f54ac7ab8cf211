/** What is known of a model: from its config, from one checkpoint, and with the place of each role in its tensors. */
import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import type { Shape } from "../core/dtype.ts";
import type { Move } from "../core/mapping/moves.ts";
import type { Dialect, ParsedConfig } from "./dialect.ts";
import type { Family } from "./family.ts";
import type { Dims, Layer, Parallelism, RoleSpec, Settings } from "./structure.ts";

/** One role of one model. */
export interface Role {
  readonly key: string;
  readonly spec: RoleSpec;
  readonly layer: Layer | null;
  readonly shape: Shape;
}

/** What a family makes of a config: all that exists before a weight file is opened. */
export interface Model {
  readonly family: Family;
  readonly settings: Settings;
  readonly dims: Dims;
  readonly layers: readonly Layer[];
  /** in execution order */
  readonly roles: ReadonlyMap<string, Role>;
}

/** A model as one checkpoint tells it. */
export interface Recognised extends Model {
  readonly dialect: Dialect;
  readonly parallelism: Parallelism;
  readonly passthrough: ParsedConfig["passthrough"];
  /** in words, what was not told but inferred */
  readonly notes: readonly string[];
  /** the config makes one tensor of two roles */
  readonly tied: boolean;
}

/** A stored tensor that must equal another, which is the one that is read. */
export interface Replica {
  readonly tensor: string;
  readonly of: string;
  /** no rank's copy: the config ties the two, and both are stored */
  readonly tied?: true;
}

/** Entries beside the model, left out for one reason. */
export interface Dropped {
  readonly why: string;
  readonly names: readonly string[];
}

/** A model together with where its roles lie in one checkpoint. */
export interface Matched extends Recognised {
  readonly checkpoint: Checkpoint;
  /** by `tensorKey`, as are the tensors named below */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** each role as moves from stored tensors */
  readonly roleSources: ReadonlyMap<string, readonly Move[]>;
  /** the roles that a stored tensor holds */
  readonly holds: ReadonlyMap<string, readonly string[]>;
  readonly replicas: readonly Replica[];
  readonly dropped: readonly Dropped[];
}

/** The layers of the main stack, in order. */
export function mainLayers({ layers }: Matched): readonly Layer[] {
  return layers.filter(({ stack }) => stack === "main");
}
