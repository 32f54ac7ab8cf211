/**
 * Gains of gated norms that make up for heads that go. The norm divides by the root of a mean over all heads of a group; with
 * fewer heads in the mean its output is smaller by √(kept / all), as if a head that was silent had spoken. The derived gain is
 * the source's times √(all / kept), rounded to the type of the source.
 */
import type { LoadedModel } from "../checkpoint/load.ts";
import { tensorKey } from "../core/checkpoint.ts";
import { bitsOf, countOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { floatBytes, isPlainFloat, type PlainFloat, widen } from "../core/float.ts";
import { readElements, roleSource } from "../core/gather.ts";
import { Sources } from "../core/read.ts";
import { type Role, roleElements } from "../families/model.ts";
import type { Cut } from "./cut.ts";
import { storeWith } from "./cut-files.ts";
import { prunableOf } from "./cut-model.ts";

/** Begins the names of files that exist only here; no path of a store begins with it. */
const MADE = "/gain:";

/** By what gains are multiplied; null: they stay as they are. */
export function gainFactor({ dims }: LoadedModel, { rescaledGains, mambaHeads }: Cut): number | null {
  if (rescaledGains !== true) return null;
  const all = (dims as unknown as Readonly<Record<"mambaHeads", number>>).mambaHeads; // of a family whose heads were cut
  const [kept] = [...mambaHeads.values()];
  return kept === undefined ? null : Math.sqrt(all / kept.length);
}

/** The gains of a source that a cut rescales, by layer, with the type in which each is stored. */
export function rescaledTypes(source: LoadedModel, cut: Cut): ReadonlyMap<number, PlainFloat> {
  if (gainFactor(source, cut) === null) return new Map();
  return new Map(
    gainsOf(source)
      .filter(({ layer }) => cut.mambaHeads.has(layer!.index))
      .map((role) => [role.layer!.index, typeOf(source, role)]),
  );
}

/** The gains of the norms that divide by a mean over Mamba heads. */
function gainsOf(model: LoadedModel): readonly Role[] {
  const { gain } = prunableOf(model);
  return [...model.roles.values()].filter(
    ({ spec, layer }) => spec.role === gain.mambaHeads && layer?.stack === "main",
  );
}

/** The type of a gain: F32 that was widened from another type counts as that type. */
function typeOf({ roleSources, tensors, checkpoint }: LoadedModel, { key }: Role): PlainFloat {
  const tensor = tensors.get(roleSources.get(key)![0]!.of!)!;
  const dtype = checkpoint.widened?.get(tensorKey(tensor)) ?? tensor.dtype;
  if (isPlainFloat(dtype)) return dtype;
  const next = "decode the source with `isologit recast SRC PLAIN --dtype bf16`, and prune PLAIN";
  const message = `the gain of a norm is ${dtype}, and only F32, BF16 and F16 can be rescaled`;
  throw new IsologitError("UNSUPPORTED", message, { tensor: tensor.name }, { next });
}

/**
 * A view of a cut whose gains are the derived ones. They are small, and are computed here, before anything is written.
 *
 * @param model the cut model
 * @throws UNSUPPORTED, NON_FINITE for a gain that its type cannot hold, and read errors
 */
export async function withRescaledGains(
  model: LoadedModel,
  source: LoadedModel,
  cut: Cut,
): Promise<LoadedModel> {
  const factor = gainFactor(source, cut);
  if (factor === null) return model;
  const [tensors, roleSources] = [new Map(model.tensors), new Map(model.roleSources)];
  const [holds, files] = [new Map(model.holds), new Map<string, Uint8Array>()];
  const widened = new Map(model.checkpoint.widened);
  await using sources = new Sources(model.checkpoint.store);
  for (const role of gainsOf(model)) {
    const { key, shape } = role;
    const old = model.tensors.get(model.roleSources.get(key)![0]!.of!)!;
    const dtype = typeOf(model, role);
    const values = (await gainIn(model, role, sources)).map((value) => value * factor);
    const bytes = floatBytes(dtype, values);
    const index = widen(dtype, bytes).findIndex((value) => !Number.isFinite(value));
    if (index >= 0) {
      const message = `the rescaled gain is ${values[index]}, which ${dtype} does not hold`;
      throw new IsologitError("NON_FINITE", message, { tensor: old.name, index });
    }
    const file = `${MADE}${key}`;
    const name = `${old.name} (rescaled ${key})`;
    const isWidened = dtype !== old.dtype;
    files.set(file, isWidened ? floatBytes("F32", widen(dtype, bytes)) : bytes);
    tensors.set(name, {
      ...{ name, dtype: old.dtype, shape },
      pieces: [{ file, offset: 0, start: shape.map(() => 0), shape }],
    });
    if (isWidened && dtype !== "F32") widened.set(name, dtype);
    roleSources.set(key, roleSource(name, countOf(shape), new Map()).moves);
    for (const [holder, keys] of holds) {
      if (!keys.includes(key)) continue;
      const left = keys.filter((other) => other !== key);
      if (left.length > 0) holds.set(holder, left);
      else holds.delete(holder);
    }
    holds.set(name, [key]);
  }
  const { checkpoint } = model;
  return {
    ...model,
    ...{ tensors, roleSources, holds },
    checkpoint: {
      ...checkpoint,
      ...(checkpoint.widened !== undefined && { widened }),
      store: storeWith(checkpoint.store, files),
    },
  };
}

async function gainIn(model: LoadedModel, role: Role, sources: Sources): Promise<Float32Array> {
  const { dtype } = model.tensors.get(model.roleSources.get(role.key)![0]!.of!)!;
  if (!isPlainFloat(dtype)) throw new IsologitError("INTERNAL", `${role.key} is ${dtype}`);
  const width = bitsOf(dtype) / 8;
  const count = countOf(role.shape);
  const bytes = new Uint8Array(count * width);
  const elements = roleElements(model, role);
  await readElements(elements, { lo: 0, hi: count }, model.tensors, width, sources, bytes);
  return widen(dtype, bytes);
}
