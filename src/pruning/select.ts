/** What of a model stays: the shape that was asked for, and within it the units and layers with the highest scores. */
import type { LoadedModel } from "../checkpoint/load.ts";
import { IsologitError } from "../core/errors.ts";
import { mainLayers } from "../families/model.ts";
import type { Layer } from "../families/structure.ts";
import type { Unit } from "../families/units.ts";
import type { Cut } from "./cut.ts";
import { prunableOf } from "./cut-model.ts";
import type { LayerCounts, ShapeOptions, UnitScore } from "./options.ts";
import type { StoredScores } from "./scores/stored-scores.ts";

/** The `k` indices with the highest scores, ascending; of equal scores the lower index stays. */
export function highest(scores: readonly number[], k: number): readonly number[] {
  const ranked = scores.map((score, index) => ({ score, index }));
  ranked.sort((a, b) => b.score - a.score || a.index - b.index);
  return ranked
    .slice(0, k)
    .map(({ index }) => index)
    .sort((a, b) => a - b);
}

/** As `highest` within each of `groups` equal runs, of which each keeps as many; `k` in all. */
export function highestInGroups(scores: readonly number[], k: number, groups: number): readonly number[] {
  const size = scores.length / groups;
  return Array.from({ length: groups }, (_, g) =>
    highest(scores.slice(g * size, (g + 1) * size), k / groups).map((index) => g * size + index),
  ).flat();
}

/** A number of units or layers that was asked for, before scores say which. */
export interface AskedShape {
  readonly widths: Readonly<Partial<Record<Unit, number>>>;
  readonly counts: LayerCounts | null;
  readonly drop: readonly number[] | null;
}

const FLAG_OF: Readonly<Record<Unit, string>> = {
  ffn: "`ffn`",
  mambaHeads: "`mambaHeads`",
  heads: "`heads`",
  hidden: "`hidden`",
};

/**
 * The shape that options ask for; null where they ask for none. A width that the model has already is no part of it.
 *
 * @throws USAGE for a shape that the model cannot have
 */
export function shapeOf(model: LoadedModel, options: ShapeOptions): AskedShape | null {
  const { layers, drop } = options;
  const units = (Object.keys(FLAG_OF) as Unit[]).filter((unit) => options[unit] !== undefined);
  if (options.rescaleGain === true && units.every((unit) => unit !== "mambaHeads"))
    refuse("`rescaleGain` is for norms that lose heads, and `mambaHeads` was not given");
  if (layers === undefined && drop === undefined && units.length === 0) return null;
  if (layers !== undefined && drop !== undefined)
    refuse("`layers` and `drop` were both given, expected one of them");
  const widths: Partial<Record<Unit, number>> = {};
  for (const unit of units) {
    const width = options[unit]!;
    if (refuseWidth(model, unit, width) !== width) widths[unit] = width;
  }
  if (drop !== undefined) refuseDrop(model, drop);
  if (layers !== undefined) refuseCounts(model, layers);
  return { widths, counts: layers ?? null, drop: drop ?? null };
}

/** Whether scores must say what stays. */
export function needsScores(model: LoadedModel, { widths, counts }: AskedShape): boolean {
  const kinds = countsOf(model);
  const chooses = ([kind, count]: [string, number]) => count > 0 && count < kinds[kind]!;
  return Object.keys(widths).length > 0 || Object.entries(counts ?? {}).some(chooses);
}

/** What stays. @param scores null where no choice is made */
export async function selectCut(
  model: LoadedModel,
  shape: AskedShape,
  scores: StoredScores | null,
  {
    score = "contribution",
    layerScore = "mse",
    rescaleGain,
  }: Pick<ShapeOptions, "score" | "layerScore" | "rescaleGain">,
): Promise<Cut> {
  const main = mainLayers(model);
  const read = (name: string, count: number) => scores!.read(name, count); // `needsScores` was asked before
  const layers = await keptLayers(main, shape, () => read(`layer.${layerScore}`, main.length));
  const prunable = prunableOf(model);
  const sizes = model.dims as unknown as Readonly<Record<Unit, number>>; // of a family whose units they count
  const lists = async (unit: Exclude<Unit, "hidden">) => {
    const width = shape.widths[unit];
    const kept = new Map<number, readonly number[]>();
    if (width === undefined) return kept;
    const { count: groups } = prunable.groups(unit, model.dims);
    for (const layer of layers) {
      if (main[layer]!.kind !== prunable.on[unit]) continue;
      const values = await read(`${scoreName(unit, score)}.${layer}`, sizes[unit]);
      kept.set(layer, highestInGroups(values, width, groups));
    }
    return kept;
  };
  const { hidden } = shape.widths;
  return {
    layers,
    ffn: await lists("ffn"),
    mambaHeads: await lists("mambaHeads"),
    heads: await lists("heads"),
    ...(hidden !== undefined && { hidden: highest(await read("hidden.activation", sizes.hidden), hidden) }),
    ...(rescaleGain === true && shape.widths.mambaHeads !== undefined && { rescaledGains: true as const }),
  };
}

function scoreName(unit: Exclude<Unit, "hidden">, score: UnitScore): string {
  if (unit === "ffn") return `ffn.${score}`;
  return `${unit === "heads" ? "attention" : "mamba"}.${score === "preactivation" ? "activation" : score}`;
}

async function keptLayers(
  main: readonly Layer[],
  { counts, drop }: AskedShape,
  readScores: () => Promise<readonly number[]>,
): Promise<readonly number[]> {
  if (drop !== null) return main.map(({ index }) => index).filter((index) => !drop.includes(index));
  if (counts === null) return main.map(({ index }) => index);
  const kept: number[] = [];
  let scores: readonly number[] | null = null;
  for (const kind of new Set(main.map((layer) => layer.kind))) {
    const indices = main.filter((layer) => layer.kind === kind).map(({ index }) => index);
    const count = counts[kind] ?? indices.length;
    if (count === 0) continue;
    if (count === indices.length) kept.push(...indices);
    else {
      scores ??= await readScores();
      const best = highest(
        indices.map((layer) => scores![layer]!),
        count,
      );
      kept.push(...best.map((i) => indices[i]!));
    }
  }
  return kept.sort((a, b) => a - b);
}

/** Number of layers of each kind. */
export function countsOf(model: LoadedModel): LayerCounts {
  const counts: Record<string, number> = Object.fromEntries(model.family.kinds.map((kind) => [kind, 0]));
  for (const { kind } of mainLayers(model)) counts[kind]!++;
  return counts;
}

function refuse(message: string, next?: string): never {
  throw new IsologitError("USAGE", message, {}, next === undefined ? {} : { next });
}

/** @returns the width that the model has */
function refuseWidth(model: LoadedModel, unit: Unit, width: number): number {
  const prunable = prunableOf(model);
  const kind = prunable.on[unit];
  const has = (stack: Layer["stack"]) =>
    model.layers.some((layer) => layer.stack === stack && layer.kind === kind);
  const name = FLAG_OF[unit];
  if (kind !== "every" && !has("main")) {
    const experts = unit === "ffn" && has("main") === false && countsOf(model).moe! > 0;
    refuse(
      `${name} is ${width}, and the model has no ${kind} layers${experts ? ": widths of experts are not cut" : ""}`,
      experts ? "drop whole moe layers with `layers` or `drop`" : undefined,
    );
  }
  const present = (model.dims as unknown as Readonly<Record<Unit, number>>)[unit]; // of a family whose units they count
  const { count, of } = prunable.groups(unit, model.dims);
  if (!Number.isSafeInteger(width) || width < 1) refuse(`${name} is ${width}, expected at least 1`);
  if (width > present) refuse(`${name} is ${width}, and the source has ${present}`);
  if (width % count !== 0)
    refuse(
      `${name} is ${width}, expected a multiple of ${count}: each ${of} keeps as many`,
      `choose ${Math.max(count, width - (width % count))}`,
    );
  if (width < present && has("mtp")) {
    const message = `${name} is ${width}, but prediction layers (mtp) have the same width and no scores`;
    refuse(message, "cut layers, or `hidden`, which prediction layers follow");
  }
  return present;
}

function refuseDrop(model: LoadedModel, drop: readonly number[]): void {
  const { length } = mainLayers(model);
  const outside = drop.find((layer) => !Number.isSafeInteger(layer) || layer < 0 || layer >= length);
  if (outside !== undefined)
    refuse(`\`drop\` has layer ${outside}, and the source has layers 0 to ${length - 1}`);
  const twice = drop.find((layer, i) => drop.indexOf(layer) !== i);
  if (twice !== undefined) refuse(`\`drop\` has layer ${twice} twice`);
  if (drop.length === length) refuse("`drop` has every layer, and none would be left");
}

function refuseCounts(model: LoadedModel, counts: LayerCounts): void {
  const present = countsOf(model);
  for (const [kind, count] of Object.entries(counts)) {
    const has = present[kind];
    if (has === undefined)
      refuse(`\`layers\` has the kind ${kind}, expected one of ${Object.keys(present).join(", ")}`);
    if (!Number.isSafeInteger(count) || count < 0) refuse(`\`layers\` keeps ${count} ${kind} layers`);
    if (count > has) refuse(`\`layers\` keeps ${count} ${kind} layers, and the source has ${has}`);
  }
  const left = Object.entries(present).reduce((sum, [kind, has]) => sum + (counts[kind] ?? has), 0);
  if (left === 0) refuse("`layers` keeps no layer");
}
