/**
 * Tensors of a destination as units of a search: each one has a type of its own. The values of each type are read from a plan in
 * which every tensor has the type of one rung.
 */
import type { TypeChooser } from "../../formats/format.ts";
import { decodeWeights, type LoadedModel, matchModel, storedRole } from "../checkpoint/load.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { readablePlan } from "../convert/tensors/planned-store.ts";
import type { Plan } from "../convert/types.ts";
import { type DType, isFloat, type Shape } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { Sources } from "../core/read.ts";
import type { Recipe } from "../families/family.ts";
import type { Role } from "../families/model.ts";
import type { Rounding } from "../inference/rounding.ts";
import { readerOf, roundingsByRow } from "../verify/recast-source.ts";
import type { UnitPlaces, Variant } from "./variants.ts";

/** A matrix of the destination that logits depend on. */
export interface TypedTensor {
  readonly name: string;
  readonly role: string;
  /** null outside of the layers */
  readonly layer: number | null;
  readonly shape: Shape;
  /** those that it can have, fewest bits first; one: there is no choice */
  readonly types: readonly DType[];
}

/** The index of a type of each tensor, in the order of the tensors. */
export type Assignment = readonly number[];

/** @param plan of the destination, with any types */
export async function typedTensors(
  { jobs, manifest }: Plan,
  chooser: TypeChooser,
): Promise<readonly TypedTensor[]> {
  const possible = await chooser.possible(manifest.tensors);
  return jobs.flatMap(({ role, tensor: { name, shape } }) => {
    const types = possible.get(name) ?? [];
    // a vector becomes F32, which changes no value; the main logits do not depend on the layers of predictions
    if (role === null || role.layer?.stack === "mtp" || types.every((dtype) => dtype === "F32")) return [];
    return [{ name, role: role.spec.role, layer: role.layer?.index ?? null, shape, types }];
  });
}

/** The recipe that gives tensors these types. */
export function recipeOfTypes(id: string, tensors: readonly TypedTensor[], assignment: Assignment): Recipe {
  const types: Record<string, string[]> = {};
  for (const [i, { name, types: all }] of tensors.entries()) {
    const dtype = all[assignment[i]!]!;
    types[dtype] = [...(types[dtype] ?? []), name];
  }
  return { id, keepEnds: 0, cast: [], types };
}

/** The variant of the source in which each tensor has the values of its type. */
export const variantOf = (tensors: readonly TypedTensor[], assignment: Assignment): Variant =>
  new Map(tensors.map(({ name, types }, i) => [name, types[assignment[i]!]!]));

/**
 * The roundings of the weights to each type, and where the weights are read.
 *
 * @param planWith plans the conversion with a recipe of types
 * @returns also what they read; close it at the end
 */
export async function roundTypes(
  source: LoadedModel,
  tensors: readonly TypedTensor[],
  planWith: (assignment: Assignment) => Promise<Plan>,
  options: RunOptions,
) {
  const rungs = Math.max(...tensors.map(({ types }) => types.length));
  const sources: AsyncDisposable[] = [];
  const planned: { readonly model: LoadedModel; readonly values: Sources }[] = [];
  for (let rung = 0; rung < rungs; rung++) {
    const plan = await planWith(tensors.map(({ types }) => Math.min(rung, types.length - 1)));
    // An F16 that overflows is no fault before it is chosen: its divergence is not a number, which no limit allows.
    const readable = await readablePlan({ plan, allowOverflow: true, signal: options.signal });
    const model = decodeWeights(matchModel(readable.checkpoint, options), { oneScale: true, blocks: true });
    const values = new Sources(model.checkpoint.store);
    planned.push({ model, values });
    sources.push(values, readable);
  }
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const tensorOf = (role: Role): TypedTensor | undefined => {
    const { model } = planned[0]!;
    return byName.get(model.tensors.get(storedRole(model, role).tensor)!.name);
  };
  const roundings = roundingsByRow(source, (role) => {
    const tensor = tensorOf(role);
    if (tensor === undefined) return null;
    const versions = tensor.types.map((dtype, rung): [string, Rounding] => {
      const { model, values } = planned[rung]!;
      const to = storedRole(model, role).dtype;
      if (!isFloat(to)) throw new IsologitError("INTERNAL", `${to} is not decoded`, { tensor: tensor.name });
      return [dtype, { to, scale: null, read: readerOf(source, model, role, values) }];
    });
    return { unit: tensor.name, versions: Object.fromEntries(versions) };
  });
  return { roundings, units: placesOf(source, tensorOf), sources };
}

function placesOf({ roles }: LoadedModel, tensorOf: (role: Role) => TypedTensor | undefined): UnitPlaces {
  const [embedding, head] = [new Set<string>(), new Set<string>()];
  const layers = new Map<number, Set<string>>();
  for (const role of roles.values()) {
    const tensor = tensorOf(role);
    if (tensor === undefined) continue;
    const { layer, spec } = role;
    const outside = spec.kind === "embedding" ? embedding : head;
    const place = layer === null ? outside : (layers.get(layer.index) ?? new Set<string>());
    place.add(tensor.name);
    if (layer !== null) layers.set(layer.index, place);
  }
  return {
    embedding: [...embedding],
    of: ({ index }) => [...(layers.get(index) ?? [])],
    head: [...head],
  };
}
