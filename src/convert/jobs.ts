/** Which stored tensors of the source make up each tensor of the destination, and how they are recast. */
import type { WantedTensor } from "../../formats/format.ts";
import type { BlockScales } from "../cast/blocks.ts";
import { decodedKey, encodedWeights, type LoadedModel } from "../checkpoint/load.ts";
import type { EncodedWeight } from "../checkpoint/scales/decode.ts";
import { moduleOf } from "../checkpoint/scales/names.ts";
import type { ScaleTable } from "../checkpoint/scales/pair.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { countOf, type FloatDType, isFloat, isFp8, recastKind, type Shape } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { ElementSource } from "../core/gather.ts";
import { type Layout, movesOf, replaceLeaves, shapeOf } from "../core/mapping/layout.ts";
import { runsOf } from "../core/mapping/moves.ts";
import { publishedName } from "../families/expand.ts";
import type { MatchedModel } from "../families/model.ts";
import { blockOf } from "../plugins/quantization-dialect.ts";
import { calibratedScales } from "./calibrated-scales.ts";
import type { PlannedWeight } from "./planned-weights.ts";
import type { QuantizedOutput } from "./quantized-output.ts";
import type { ColumnShare, Job, ScaledRun } from "./types.ts";

/**
 * @param weights the tensors of the destination that hold roles
 * @param output  what becomes of scales
 * @param sameDialect the destination names tensors as the source does
 */
export function planJobs(
  source: LoadedModel,
  weights: readonly PlannedWeight[],
  output: QuantizedOutput,
  sameDialect: boolean,
): {
  readonly jobs: readonly Job[];
  readonly tensors: readonly WantedTensor[];
  /** bytes of tensors that no job writes, by `tensorKey` */
  readonly known: ReadonlyMap<string, Uint8Array>;
} {
  const { scales } = source;
  const jobs: Job[] = [];
  const tensors: WantedTensor[] = [];
  const known = new Map<string, Uint8Array>();
  const add = (job: Job) => {
    jobs.push(job);
    tensors.push(job.tensor);
  };
  const encoded = encodedWeights(source);
  const decodedRoles = decodedSources(source.roleSources, encoded);
  const scalesOfOwner = scalesByOwner(scales);
  const described = output.kind === "described" ? output : null;
  for (const weight of weights) {
    const { name, rank, layout, from, role, sourceDtype, cast: to, why } = weight;
    const placed = { name, ...(rank !== undefined && { rank }) };
    const shape = shapeOf(layout);
    const elementSource: ElementSource = {
      moves: movesOf(replaceLeaves(layout, source.takenRows ?? new Map())),
      roles: source.roleSources,
    };
    const columns = columnShare(layout, source);
    const common = {
      ...{ role, why, elementSource, sourceDtype, count: countOf(shape) },
      ...(columns !== undefined && { columns }),
    };
    if (to === null)
      add({
        ...common,
        tensor: { ...placed, dtype: sourceDtype, shape, ...spellingOf(from, name, common.count) },
      });
    else {
      const isDecoded = from.some((tensor) => encoded.has(tensorKey(tensor)));
      const castFrom = isDecoded ? "F32" : floatType(from[0]!);
      const sourceScales = isDecoded ? [] : scaledRuns(source, from, elementSource, common.count);
      const scaleTensor = isFp8(to) ? newScale(name, shape, output) : null;
      const blocks = isFp8(to) ? blockScales(castFrom, { name, shape, to }, output) : undefined;
      add({
        ...common,
        ...(isDecoded && { elementSource: { ...elementSource, roles: decodedRoles }, sourceDtype: castFrom }),
        tensor: {
          ...{ ...placed, dtype: to, shape },
          ...(isFloat(to) && {
            recast: {
              ...{ kind: recastKind(to), sourceDtype: castFrom },
              ...(blocks !== undefined && { scales: scaleTensor!.name }), // blocks have scales
            },
          }),
        },
        cast: {
          from: castFrom,
          ...(isDecoded && { fromCodes: true as const }),
          to,
          ...(sourceScales.length > 0 && { sourceScales }),
          ...(scaleTensor !== null && { scaleTo: scaleTensor.name }),
          ...(blocks !== undefined && { blocks }),
        },
      });
      if (scaleTensor !== null) tensors.push(scaleTensor);
    }
    for (const { name: owner } of from) {
      for (const scale of scalesOfOwner.get(owner) ?? []) {
        if (to !== null && scales.scaleOf.get(owner)?.tensor === scale) continue; // a new scale replaces it
        const copied = copiedScale(source.tensors.get(scale)!, owner, { name, shape }, scales, output);
        if (copied !== null) add(copied);
      }
    }
    for (const { tensor, bytes } of described === null ? [] : calibratedScales(weight, described)) {
      tensors.push(tensor);
      known.set(tensorKey(tensor), bytes);
    }
  }
  if (sameDialect && output.kind !== "removed") {
    const names = new Set(weights.map(({ name }) => name));
    const isRenamed = [...source.holds.keys()].some((name) => !names.has(name));
    for (const name of scales.scaleTensors) {
      if (scales.ownerOf.has(name) || described?.companions.has(name) === false) continue;
      add(copyJob(source.tensors.get(name)!, isRenamed ? publishedName(name, source.dialect) : name));
    }
  }
  return { jobs, tensors, known };
}

/** The tensor for the scale of a weight that is cast to FP8. */
function newScale(weight: string, shape: Shape, output: QuantizedOutput): WantedTensor {
  if (output.kind !== "described")
    throw new IsologitError("INTERNAL", "a weight is cast to FP8 and nothing describes it");
  return scaleTensorOf(weight, shape, output);
}

/** The tensor for the scales of a weight; in a stack of matrices each has its own rows and blocks. */
function scaleTensorOf(
  weight: string,
  shape: Shape,
  { dialect, scales }: Extract<QuantizedOutput, { kind: "described" }>,
): WantedTensor {
  const scale = dialect.scaleTensor(weight, shape.slice(-2), scales);
  return scales === "tensor" ? scale : { ...scale, shape: [...shape.slice(0, -2), ...scale.shape] };
}

/**
 * How a weight that is cast to E4M3 is divided into blocks; undefined with one scale for the tensor.
 *
 * @throws PLAN_IMPOSSIBLE for MXFP8 where a row is no multiple of 32, and for blocks of a stack of matrices; UNSUPPORTED for codes of another type
 */
function blockScales(
  from: FloatDType,
  { name, shape, to }: { readonly name: string; readonly shape: Shape; readonly to: FloatDType },
  output: QuantizedOutput,
): BlockScales | undefined {
  if (output.kind !== "described" || output.scales === "tensor") return undefined;
  if (to !== "F8_E4M3")
    throw new IsologitError("PLAN_IMPOSSIBLE", `no engine reads ${to} with several scales a tensor`);
  const [, columns = 1] = shape.slice(-2);
  if (shape.length > 2 && output.scales === "block") {
    const message = `it is a stack of ${shape[0]} matrices, and scales of blocks are written for single matrices`;
    const next = "use `quantScales` row, or a recipe that keeps it";
    throw new IsologitError("PLAN_IMPOSSIBLE", message, { tensor: name }, { next });
  }
  const isExponent = output.scales === "mxfp8";
  if (isExponent && columns % 32 !== 0) {
    const message = `its rows have ${columns} elements; MXFP8 has a scale for each 32`;
    const next = "use a recipe that keeps it, or other `quantScales`";
    throw new IsologitError("PLAN_IMPOSSIBLE", message, { tensor: name }, { next });
  }
  if (from === "F32" || from === "BF16" || from === "F16")
    return { from, columns, block: blockOf(shape.slice(-2), output.scales), isExponent };
  const message = `${from} is not cast to E4M3 with several scales`;
  const next = "convert the source with `dtype` bf16 first";
  throw new IsologitError("UNSUPPORTED", message, { tensor: name }, { next });
}

/** Weight -> its scales. A scale without an owner belongs to the KV cache of a layer. */
function scalesByOwner({ scaleTensors, ownerOf }: ScaleTable): ReadonlyMap<string, readonly string[]> {
  const scalesOf = new Map<string, string[]>();
  for (const name of scaleTensors) {
    const owner = ownerOf.get(name);
    if (owner !== undefined) scalesOf.set(owner, [...(scalesOf.get(owner) ?? []), name]);
  }
  return scalesOf;
}

/** The copy of a scale whose weight `owner` becomes the tensor `weight`; null if the destination does not store the scale. */
function copiedScale(
  scale: Tensor,
  owner: string,
  weight: { readonly name: string; readonly shape: Shape },
  scales: ScaleTable,
  output: QuantizedOutput,
): Job | null {
  const { name } = scale;
  if (output.kind === "copied") return copyJob(scale, scaleNameFor(name, owner, weight.name));
  if (output.kind === "removed") return null;
  const { dialect, companions } = output;
  if (scales.scaleOf.get(owner)?.tensor === name) {
    const { name: newName, shape } = scaleTensorOf(weight.name, weight.shape, output);
    return copyJob(scale, newName, shape);
  }
  const ending = companions.get(name);
  if (ending === undefined) return null;
  const { shape } = dialect.scaleTensor(weight.name, weight.shape, "tensor");
  return copyJob(scale, moduleOf(weight.name) + ending, shape);
}

/** The sources of roles, with the decoded values in place of the codes of encoded weights. */
function decodedSources(
  roleSources: MatchedModel["roleSources"],
  encoded: ReadonlyMap<string, EncodedWeight>,
): MatchedModel["roleSources"] {
  if (encoded.size === 0) return roleSources;
  return new Map(
    [...roleSources].map(([role, moves]) => [
      role,
      moves.map((move) => (encoded.has(move.of ?? "") ? { ...move, of: decodedKey(move.of!) } : move)),
    ]),
  );
}

/** Runs of a destination's elements, each with the scale that decodes it; none without scales. */
function scaledRuns(
  { scales, roleSources }: LoadedModel,
  from: readonly Tensor[],
  elementSource: ElementSource,
  count: number,
): readonly ScaledRun[] {
  const named = new Set(from.flatMap(({ name }) => scales.scaleOf.get(name)?.tensor ?? []));
  if (named.size === 0) return [];
  if (named.size === 1) return [{ lo: 0, hi: count, scale: [...named][0]! }];
  const runs: ScaledRun[] = [];
  for (const { of, to, count: size } of [...runsOf(elementSource.moves, 0, count)].sort(
    (a, b) => a.to - b.to,
  )) {
    // a weight with a scale is one whole role
    const scale = scales.scaleOf.get(roleSources.get(of ?? "")?.[0]?.of ?? "")?.tensor;
    const last = runs.at(-1);
    if (scale === undefined) throw new IsologitError("INTERNAL", `${of} has no scale, unlike its neighbours`);
    if (last?.scale === scale && last.hi === to) runs[runs.length - 1] = { ...last, hi: to + size };
    else runs.push({ lo: to, hi: to + size, scale });
  }
  return runs;
}

/**
 * How a file spells codes of four bits that are copied to a tensor `name`: as in the source. Empty for other tensors.
 *
 * @param count elements of the tensor
 */
function spellingOf(from: readonly Tensor[], name: string, count: number): Partial<WantedTensor> {
  const [{ name: owner, stored, shape }, ...others] = from as readonly [Tensor, ...Tensor[]];
  if (stored === undefined) return {};
  if (others.length === 0 && countOf(shape) === count)
    return { ...stored, name: name + stored.name.slice(owner.length) };
  throw new IsologitError(
    "UNSUPPORTED",
    "codes of four bits can be copied only as one whole tensor",
    { tensor: owner },
    { next: "decode them with `dtype` bf16" },
  );
}

/** The name of a scale after its weight is renamed from `owner` to `name`. */
function scaleNameFor(scale: string, owner: string, name: string): string {
  if (scale.startsWith(owner)) return name + scale.slice(owner.length);
  const module = `${moduleOf(owner)}.`;
  return scale.startsWith(module) ? `${moduleOf(name)}.${scale.slice(module.length)}` : scale;
}

/** Copies a tensor that has no role, under another name and in another shape of as many elements. */
function copyJob(tensor: Tensor, newName: string, shape: Shape = tensor.shape): Job {
  const { name, dtype } = tensor;
  const count = countOf(shape);
  const whole = { of: name, size: [count], fromAt: 0, from: [1], toAt: 0, to: [1] };
  return {
    tensor: { name: newName, dtype, shape },
    role: null,
    why: "a scale is copied",
    elementSource: { moves: [whole], roles: new Map([[name, [whole]]]) },
    sourceDtype: dtype,
    count,
  };
}

function floatType(tensor: Tensor): FloatDType {
  if (isFloat(tensor.dtype)) return tensor.dtype;
  throw new IsologitError("UNSUPPORTED", `${tensor.dtype} cannot be recast`, { tensor: tensor.name });
}

/** Undefined for a layout that is not a share of a matrix's columns. */
function columnShare(layout: Layout, { takenRows }: MatchedModel): ColumnShare | undefined {
  if (layout.op !== "slice" || layout.axis !== 1 || layout.of.op !== "leaf") return undefined;
  const { of: role, shape } = layout.of;
  return shape.length === 2 && takenRows?.has(role) !== true
    ? { role, shape, from: layout.from, to: layout.to }
    : undefined;
}
