/** Layers as units of a search: a layer is as it is stored, or all of its weights that a plan casts are. */
import { decodeWeights, type LoadedModel, matchModel, storedRole } from "../checkpoint/load.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { readablePlan } from "../convert/tensors/planned-store.ts";
import type { Plan } from "../convert/types.ts";
import { tensorKey } from "../core/checkpoint.ts";
import { isFloat } from "../core/dtype.ts";
import { Sources } from "../core/read.ts";
import type { Role } from "../families/model.ts";
import { readerOf, roundingsByRow } from "../verify/recast-source.ts";
import type { UnitPlaces, Variant } from "./variants.ts";

const VERSION = "recast";

const unitOf = (layer: number): string => `${layer}`;

/** The variant that casts these main layers. */
export const castingLayers = (layers: readonly number[]): Variant =>
  new Map(layers.map((layer) => [unitOf(layer), VERSION]));

export const LAYER_UNITS: UnitPlaces = { embedding: [], of: ({ index }) => [unitOf(index)], head: [] };

/**
 * The roundings of the weights that a plan casts, read from the planned destination.
 *
 * @returns also what they read; close it at the end
 */
export async function roundLayers(source: LoadedModel, plan: Plan, options: RunOptions) {
  const readable = await readablePlan({ plan, allowOverflow: true, signal: options.signal });
  const planned = decodeWeights(matchModel(readable.checkpoint, options), { oneScale: true, blocks: true });
  const values = new Sources(planned.checkpoint.store);
  const cast = new Set(
    plan.jobs.filter((job) => job.cast !== undefined).map(({ tensor }) => tensorKey(tensor)),
  );
  const isCast = ({ key }: Role) => cast.has(planned.roleSources.get(key)![0]!.of!);
  const roundings = roundingsByRow(source, (role) => {
    const { dtype } = storedRole(planned, role);
    if (role.layer?.stack !== "main" || !isCast(role) || !isFloat(dtype)) return null;
    const rounding = { to: dtype, scale: null, read: readerOf(source, planned, role, values) };
    return { unit: unitOf(role.layer.index), versions: { [VERSION]: rounding } };
  });
  return { roundings, sources: [values, readable] as readonly AsyncDisposable[] };
}
