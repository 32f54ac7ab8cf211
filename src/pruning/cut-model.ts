/** The model that a cut leaves, as a view of its source: its settings, layers and roles, and where each role lies. */
import type { LoadedModel } from "../checkpoint/load.ts";
import { tensorKey } from "../core/checkpoint.ts";
import { sameShape } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { indexRuns, type Layout, leaf, take, takeMoves } from "../core/mapping/layout.ts";
import type { Move } from "../core/mapping/moves.ts";
import { mainLayers, type Role } from "../families/model.ts";
import type { AxisPart, Prunable } from "../families/prunable.ts";
import { rolesOf } from "../families/recognise.ts";
import { type Layer, roleKey } from "../families/structure.ts";
import type { Unit } from "../families/units.ts";
import type { Cut } from "./cut.ts";
import { type CutWeight, cutScaledWeight } from "./cut-scales.ts";
import { renumberName } from "./renumber.ts";

/** @throws UNSUPPORTED for a family that has no rules for it */
export function prunableOf({ family }: Pick<LoadedModel, "family">): Prunable {
  if (family.prunable !== undefined) return family.prunable;
  const message = `${family.id} cannot be pruned: this version has no rules for its layers`;
  const next = "prune a model of the family nemotron-h";
  throw new IsologitError("UNSUPPORTED", message, {}, { next });
}

/** The units that stay in a layer of the source; undefined: all. Prediction layers lose hidden channels alone. */
function keptIn(cut: Cut, unit: Unit, layer: Layer | null): readonly number[] | undefined {
  if (unit === "hidden") return cut.hidden;
  return layer?.stack === "main" ? cut[unit].get(layer.index) : undefined;
}

/** How many of each unit a cut keeps; undefined where all stay. */
function widthsOf(cut: Cut): Readonly<Record<Unit, number | undefined>> {
  const [ffn, mambaHeads, heads] = ([cut.ffn, cut.mambaHeads, cut.heads] as const).map(
    (lists) => [...lists.values()][0]?.length,
  );
  return { ffn, mambaHeads, heads, hidden: cut.hidden?.length };
}

/** What a role of the cut model is of the source. */
export interface CutRole {
  readonly role: Role;
  /** of the source */
  readonly from: Role;
  /** for each axis the indices that stay; undefined: all */
  readonly kept: readonly (readonly number[] | undefined)[];
}

export interface CutModel {
  readonly model: LoadedModel;
  readonly roles: readonly CutRole[];
}

/**
 * The source with its roles cut. It reads the same stored tensors; nothing is copied. Its config is still that of the source.
 *
 * @throws UNSUPPORTED for weights whose scales cannot be cut: see `cutScaledWeight`
 */
export function cutModel(source: LoadedModel, cut: Cut): CutModel {
  const { family, settings: before } = source;
  const prunable = prunableOf(source);
  const kept = Object.entries(widthsOf(cut)).filter(([, width]) => width !== undefined);
  const settings = prunable.settings(before, cut.layers, Object.fromEntries(kept));
  const dims = family.dims(settings);
  const layers = family.layers(settings);
  const axes = prunable.axes(source.dims);
  const roles = [...rolesOf(family, dims, layers).values()].map((role): CutRole => {
    const layer = sourceLayer(role.layer, source, cut);
    const from = source.roles.get(roleKey(role.spec.role, layer, role.expert))!; // a cut adds no role
    const parts =
      axes[role.spec.role] ?? from.shape.map((count): AxisPart[] => [{ unit: null, count, size: 1 }]);
    const indices = parts.map((axis) => keptIndices(axis, (unit) => keptIn(cut, unit, layer)));
    const shape = from.shape.map((size, axis) => indices[axis]?.length ?? size);
    if (!sameShape(shape, role.shape))
      throw new IsologitError("INTERNAL", `${role.key} is cut to [${shape}], expected [${role.shape}]`);
    return { role, from, kept: indices };
  });
  const roleSources = new Map<string, readonly Move[]>();
  const takenRows = new Map<string, Layout>();
  const weights: CutWeight[] = [];
  for (const { role, from, kept: all } of roles) {
    const weight = cutScaledWeight(source, from, all);
    if (weight !== null) weights.push(weight);
    const { kept } = weight ?? { kept: all };
    let [moves, shape] = [weight?.moves ?? source.roleSources.get(from.key)!, weight?.shape ?? from.shape];
    // Rows beside columns would need a move for each pair of runs; rows are then taken where elements are read.
    const both = kept[0] !== undefined && kept.slice(1).some((indices) => indices !== undefined);
    for (const [axis, indices] of kept.entries()) {
      if (indices === undefined || (both && axis === 0)) continue;
      moves = takeMoves(moves, shape, axis, indexRuns(indices));
      shape = shape.with(axis, indices.length);
    }
    roleSources.set(role.key, moves);
    if (both) takenRows.set(role.key, take(leaf(role.key, shape), 0, kept[0]!));
  }
  return {
    model: viewOf(withCutWeights(source, weights), {
      ...{ settings, dims, layers, roles, roleSources, takenRows },
      ...{ source, kept: cut.layers },
    }),
    roles,
  };
}

/** The source with cut weights and scales in place of its own. */
function withCutWeights(source: LoadedModel, weights: readonly CutWeight[]): LoadedModel {
  if (weights.length === 0) return source;
  const tensors = new Map(source.tensors);
  const scaleOf = new Map(source.scales.scaleOf);
  for (const { tensors: cut, weight, scale } of weights) {
    for (const tensor of cut) tensors.set(tensorKey(tensor), tensor);
    scaleOf.set(weight, scale);
  }
  return { ...source, tensors, scales: { ...source.scales, scaleOf } };
}

function viewOf(
  source: LoadedModel,
  cut: Pick<LoadedModel, "settings" | "dims" | "layers" | "roleSources"> & {
    readonly roles: readonly CutRole[];
    readonly takenRows: ReadonlyMap<string, Layout>;
    /** as it is stored */
    readonly source: LoadedModel;
    /** layers of the source that stay */
    readonly kept: readonly number[];
  },
): LoadedModel {
  const { roles, kept: _, source: stored, ...fields } = cut;
  const main = mainLayers({ ...source, layers: cut.layers });
  const newKeys = new Map<string, string[]>();
  for (const { role, from } of roles) newKeys.set(from.key, [...(newKeys.get(from.key) ?? []), role.key]);
  const holds = [...source.holds].flatMap(([name, keys]): [string, readonly string[]][] => {
    const held = keys.flatMap((key) => newKeys.get(key) ?? []);
    return held.length === 0 ? [] : [[name, held]];
  });
  return {
    ...source,
    ...fields,
    ...renumberedScales(source, new Set(holds.map(([name]) => source.tensors.get(name)!.name)), cut.kept),
    parallelism: {
      ...source.parallelism,
      stages: [{ main: main.length, mtp: cut.layers.length - main.length }],
    },
    cutFrom: { source: stored, rename: (name) => renumberName(name, cut.kept) },
    roles: new Map(roles.map(({ role }) => [role.key, role])),
    holds: new Map(holds),
  };
}

/**
 * The scales of the weights that stay. Scales that no forward pass reads get the names that they will have; under these
 * names they may hide scales of other layers, which are not read either.
 */
function renumberedScales(
  { scales, tensors }: LoadedModel,
  weights: ReadonlySet<string>,
  layers: readonly number[],
): Pick<LoadedModel, "scales" | "tensors"> {
  const all = new Map(tensors);
  const ownerOf = new Map([...scales.ownerOf].filter(([, owner]) => weights.has(owner)));
  const unused = scales.unusedScales.flatMap((old) => {
    const owner = scales.ownerOf.get(old);
    const name = owner === undefined || weights.has(owner) ? renumberName(old, layers) : null;
    return name === null ? [] : [{ old, name, owner }];
  });
  for (const { old } of unused) ownerOf.delete(old);
  for (const { old, name, owner } of unused) {
    all.set(name, { ...tensors.get(old)!, name });
    if (owner !== undefined) ownerOf.set(name, owner);
  }
  const gone = new Set(scales.unusedScales);
  const read = [...scales.scaleTensors].filter((name) => !gone.has(name) && ownerOf.has(name));
  const names = unused.map(({ name }) => name);
  return {
    tensors: all,
    scales: { ...scales, ownerOf, unusedScales: names, scaleTensors: new Set([...read, ...names]) },
  };
}

/** The layer of the source that became this one. */
function sourceLayer(layer: Layer | null, { layers }: Pick<LoadedModel, "layers">, cut: Cut): Layer | null {
  if (layer === null) return null;
  const index = layer.stack === "main" ? cut.layers[layer.index]! : layer.index;
  return layers.find((other) => other.stack === layer.stack && other.index === index)!;
}

/** The indices of an axis that stay; undefined: all. */
function keptIndices(
  parts: readonly AxisPart[],
  keptOf: (unit: Unit) => readonly number[] | undefined,
): readonly number[] | undefined {
  const indices: number[] = [];
  let [at, isCut] = [0, false];
  for (const { unit, count, size } of parts) {
    const units = unit === null ? undefined : keptOf(unit);
    if (units === undefined) for (let i = 0; i < count * size; i++) indices.push(at + i);
    else {
      isCut = true;
      for (const k of units) for (let i = 0; i < size; i++) indices.push(at + k * size + i);
    }
    at += count * size;
  }
  return isCut ? indices : undefined;
}
