/**
 * What of a model may be cut: which axes of its roles are counted in units, and which settings say how many units there are.
 * This table makes the plan; `Forward.masks` checks it and is written apart from it.
 */
import type { Dims, Settings } from "./structure.ts";
import type { Unit } from "./units.ts";

/** Consecutive elements of an axis: `size` for each of `count` units; null: elements that stay whole. */
export interface AxisPart {
  readonly unit: Unit | null;
  readonly count: number;
  readonly size: number;
}

export interface Prunable<D extends Dims = Dims> {
  /** the layer kinds that have a unit; "every": all, and the roles outside of layers */
  readonly on: Readonly<Record<Unit, string | "every">>;
  /** number of groups of a unit, each of which keeps as many, and the name of a group in messages */
  groups(unit: Unit, d: D): { readonly count: number; readonly of: string };
  /** the role whose values multiply the result of a norm over a unit, inside the layers that have the unit */
  readonly gain: { readonly mambaHeads: string };
  /** the parts of each axis by role */
  axes(d: D): Readonly<Record<string, readonly (readonly AxisPart[])[]>>;
  /** settings of the model with these layers of the main stack, in order, and with these numbers of units */
  settings(
    settings: Settings,
    layers: readonly number[],
    widths: Readonly<Partial<Record<Unit, number>>>,
  ): Settings;
}

/** A cut as a config says it. */
export interface ConfigCut {
  /** settings that have another value than before */
  readonly changed: Settings;
  /** layers of the main stack that stay; absent: all */
  readonly layers?: readonly number[];
  /** all settings of the source */
  readonly before: Settings;
}
