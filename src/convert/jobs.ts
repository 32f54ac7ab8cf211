/** Which stored tensors of the source make up each tensor of the destination, and how they are recast. */
import type { WantedTensor, Writer } from "../../formats/format.ts";
import { moduleOf, SCALE_SHAPE, scaleName } from "../checkpoint/scales/names.ts";
import type { ScaleTable } from "../checkpoint/scales/pair.ts";
import type { Tensor } from "../core/checkpoint.ts";
import { countOf, type FloatDType, isFloat, isFp8, recastKind } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { ElementSource } from "../core/gather.ts";
import { type Layout, movesOf, shapeOf } from "../core/mapping/layout.ts";
import { runsOf } from "../core/mapping/moves.ts";
import type { Dialect } from "../families/dialect.ts";
import {
  type ExpectedTensor,
  leafRoles,
  publishedName,
  tensorsHeld,
  tensorsWritten,
} from "../families/expand.ts";
import type { MatchedModel } from "../families/model.ts";
import type { Parallelism } from "../families/structure.ts";
import { type Policy, recastType } from "../quantization/policy.ts";
import type { PlanOptions } from "./options.ts";
import type { ColumnShare, Job, ScaledRun } from "./types.ts";

/**
 * The tensors of the destination with their names. Into and out of a packed file, tensors keep the names of the source, so
 * that the way back gives the same bytes; a recast keeps them if the source has each name. Else names are those of the
 * published models.
 */
export function chooseNames(
  source: MatchedModel,
  dialect: Dialect,
  writer: Writer,
  policy: Policy,
  options: PlanOptions,
  parallelism: Parallelism,
): readonly ExpectedTensor[] {
  const published = tensorsWritten(source, dialect, parallelism);
  const packed = source.checkpoint.format === "packed" || writer.container === "file";
  if (!packed || dialect.id !== source.dialect.id || options.maxShardBytes !== undefined) return published;
  if (policy.to === null) return tensorsHeld(source);
  const sameNames = published.map((tensor) => {
    const name = [tensor.name, ...tensor.also].find((candidate) => source.tensors.has(candidate));
    return name === undefined ? undefined : { ...tensor, name };
  });
  return sameNames.every((tensor) => tensor !== undefined) ? sameNames : published;
}

export function planJobs(
  source: MatchedModel,
  scales: ScaleTable,
  policy: Policy,
  stored: readonly ExpectedTensor[],
  sameDialect: boolean,
): { jobs: readonly Job[]; tensors: readonly WantedTensor[] } {
  const jobs: Job[] = [];
  const tensors: WantedTensor[] = [];
  const add = (job: Job) => {
    jobs.push(job);
    tensors.push(job.tensor);
  };
  const scalesOfOwner = new Map<string, string[]>();
  for (const name of scales.scaleTensors) {
    const owner = scales.ownerOf.get(name);
    if (owner === undefined) continue; // a scale of the KV cache belongs to no weight; it is added below
    scalesOfOwner.set(owner, [...(scalesOfOwner.get(owner) ?? []), name]);
  }
  for (const expected of stored) {
    const { name, rank, layout } = expected;
    const placed = { name, ...(rank !== undefined && { rank }) };
    const shape = shapeOf(layout);
    const from = sourceTensors(source, expected);
    const sourceDtype = from[0]!.dtype;
    const role = source.roles.get(leafRoles(layout)[0]!)!;
    const to = recastType(role, sourceDtype, policy, source);
    const elementSource: ElementSource = { moves: movesOf(layout), roles: source.roleSources };
    const columns = columnShare(layout);
    const common = {
      ...{ role, elementSource, sourceDtype, count: countOf(shape) },
      ...(columns !== undefined && { columns }),
    };
    if (to === "keep") {
      add({
        ...common,
        tensor: { ...placed, dtype: sourceDtype, shape, ...spellingOf(from, name, common.count) },
      });
      // An FP8 weight that is not recast keeps its scales, whose names contain its name.
      for (const { name: owner } of from) {
        for (const scale of scalesOfOwner.get(owner) ?? []) {
          add(copyJob(source.tensors.get(scale)!, scaleNameFor(scale, owner, name)));
        }
      }
      continue;
    }
    for (const { name: tensor } of from) {
      if ((scales.scaleOf.get(tensor)?.extent ?? "tensor") === "tensor") continue;
      const message = "it has several scales; such a tensor can be copied, not recast";
      throw new IsologitError("UNSUPPORTED", message, { tensor }, { next: "use `dtype` keep" });
    }
    const sourceScales = scaledRuns(source, scales, from, elementSource, common.count);
    const scaleTo = isFp8(to) ? scaleName(name) : undefined;
    add({
      ...common,
      tensor: { ...placed, dtype: to, shape, recast: { kind: recastKind(to), sourceDtype } },
      cast: {
        from: floatType(from[0]!),
        to,
        ...(sourceScales.length > 0 && { sourceScales }),
        ...(scaleTo !== undefined && { scaleTo }),
      },
    });
    if (scaleTo !== undefined) tensors.push({ name: scaleTo, dtype: "F32", shape: SCALE_SHAPE });
  }
  if (sameDialect) {
    const names = new Set(stored.map(({ name }) => name));
    const isRenamed = [...source.holds.keys()].some((name) => !names.has(name));
    for (const name of scales.scaleTensors) {
      if (scales.ownerOf.has(name)) continue;
      add(copyJob(source.tensors.get(name)!, isRenamed ? publishedName(name, source.dialect) : name));
    }
  }
  return { jobs, tensors };
}

/** Runs of a destination's elements, each with the scale that decodes it; none without scales. */
function scaledRuns(
  source: MatchedModel,
  scales: ScaleTable,
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
    const scale = scales.scaleOf.get(source.roleSources.get(of ?? "")?.[0]?.of ?? "")?.tensor;
    const last = runs.at(-1);
    if (scale === undefined) throw new IsologitError("INTERNAL", `${of} has no scale, unlike its neighbours`);
    if (last?.scale === scale && last.hi === to) runs[runs.length - 1] = { ...last, hi: to + size };
    else runs.push({ lo: to, hi: to + size, scale });
  }
  return runs;
}

/** The source tensors of a destination tensor. @throws PLAN_IMPOSSIBLE if they have different types */
function sourceTensors(source: MatchedModel, { name, layout }: ExpectedTensor): readonly Tensor[] {
  const names = new Set(
    leafRoles(layout).flatMap((role) => (source.roleSources.get(role) ?? []).map((move) => move.of!)),
  );
  const tensors = [...names].map((n) => source.tensors.get(n)!);
  const other = tensors.find((tensor) => tensor.dtype !== tensors[0]!.dtype);
  if (other !== undefined) {
    const message = `it joins ${tensors[0]!.name} (${tensors[0]!.dtype}) and ${other.name} (${other.dtype})`;
    throw new IsologitError(
      "PLAN_IMPOSSIBLE",
      message,
      { tensor: name },
      { next: "make them one type with `dtype`" },
    );
  }
  return tensors;
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

/** Copies a tensor that has no role. */
function copyJob(tensor: Tensor, newName: string): Job {
  const { name, dtype, shape } = tensor;
  const count = countOf(shape);
  const whole = { of: name, size: [count], fromAt: 0, from: [1], toAt: 0, to: [1] };
  return {
    tensor: { name: newName, dtype, shape },
    role: null,
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
function columnShare(layout: Layout): ColumnShare | undefined {
  if (layout.op !== "slice" || layout.axis !== 1 || layout.of.op !== "leaf") return undefined;
  const { of: role, shape } = layout.of;
  return shape.length === 2 ? { role, shape, from: layout.from, to: layout.to } : undefined;
}
