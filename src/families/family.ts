/** A family is an architecture: its roles, how each dialect stores them, and how it runs. It does not know files. */
import type { Dialect } from "./dialect.ts";
import type { Forward } from "./forward.ts";
import type { Prunable } from "./prunable.ts";
import type { Config, Dims, Layer, RoleSpec, Settings } from "./structure.ts";

/** Which roles are cast. A role in `keep` is kept even if `cast` names it; a role in neither is kept. */
export interface Recipe {
  readonly id: string;
  /** where the choice comes from; absent for a recipe file */
  readonly source?: string;
  /** number of layers at each end of the main stack that are kept, as the software of the family counts layers */
  readonly keepEnds: number;
  /** roles by name, or `prefix.*` */
  readonly cast: readonly string[];
  readonly keep?: readonly string[];
  /** indices of the main-stack layers that are kept */
  readonly keepLayers?: readonly number[];
  /** main-stack layers of `kind` directly before one of kind `next` are kept */
  readonly keepBefore?: readonly { readonly kind: string; readonly next: string }[];
  /** in place of all rules above: the names of the destination's tensors, by their type */
  readonly types?: Readonly<Record<string, readonly string[]>>;
}

export interface Family<D extends Dims = Dims> {
  readonly id: string;
  /** Whether this config is of this family. @throws UNSUPPORTED for a similar architecture that is not supported */
  claims(config: Config): boolean;
  /** the kinds that a layer can have */
  readonly kinds: readonly string[];
  /** the layer pattern in the letters of the family, one for each layer */
  pattern(s: Settings): string;
  layers(s: Settings): readonly Layer[];
  dims(s: Settings): D;
  readonly roles: readonly RoleSpec<D>[];
  readonly dialects: readonly Dialect<D>[];
  /** dialects that the family cannot have, by id, with the reason as text */
  readonly absentDialects?: Readonly<Record<string, string>>;
  readonly recipes: readonly Recipe[];
  readonly forward: Forward<D>;
  /** absent: no part of such a model can be cut */
  readonly prunable?: Prunable<D>;
}
