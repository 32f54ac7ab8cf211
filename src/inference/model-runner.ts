/** Creates model runners, refuses models that cannot run natively, and counts the bytes that a run reads. */
import type { Backend } from "../../kernels/kernel.ts";
import { decodeWeights, type LoadedModel, type ModelWithScales } from "../checkpoint/load.ts";
import { runTensors } from "../checkpoint/stored-functions.ts";
import { tensorKey } from "../core/checkpoint.ts";
import { bytesOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import type { Sources } from "../core/read.ts";
import type { Native } from "../families/forward.ts";
import type { MatchedModel } from "../families/model.ts";
import type { Layer } from "../families/structure.ts";
import { matmulTask } from "./products/tasks.ts";
import type { RowRounding } from "./rounding.ts";
import { ModelRunner } from "./runner.ts";
import { type BlockNames, TensorLookup } from "./tensor-lookup.ts";
import type { MatrixRows, WeightRounder, WeightsOptions } from "./weight-bands.ts";

interface RunnerRequest {
  readonly backend: Backend;
  readonly sources: Sources;
  readonly tokens: number;
  /** lengths of sequences that follow each other and do not see each other; default: one sequence of all tokens */
  readonly sequences?: readonly number[] | undefined;
  readonly roundings: ReadonlyMap<string, readonly RowRounding[]>;
  readonly rounder: WeightRounder;
  readonly bandBytes: number;
  readonly buffers?: WeightsOptions["buffers"];
  readonly advance: (bytes: number) => void;
  readonly onRead?: WeightsOptions["onRead"];
  readonly signal: AbortSignal | undefined;
  /** all layers of the main stack will run in order, then the head, with stored weights: bands are read ahead; default false */
  readonly inOrder?: boolean;
}

/**
 * Creates a runner over the stored tensors of a loaded model.
 *
 * @param model result of `decodeWeights`: each weight has one scale or none
 * @throws UNSUPPORTED where its dialect cannot run
 */
export function createRunner(model: ModelWithScales, running: RunnerRequest): ModelRunner {
  const { dims, family, scales, scaleValues } = model;
  const scaleOf = new Map([...scales.scaleOf.keys()].map((name) => [name, scaleValues.get(name)?.[0] ?? 1]));
  return new ModelRunner({
    ...running,
    forward: family.forward,
    native: nativeOf(model),
    dims,
    tensors: runTensors(model),
    scaleOf,
    following: running.inOrder === true ? followingRows(model) : undefined,
  });
}

/** For each stored matrix, by `tensorKey`, the matrix that a run of all layers multiplies next; experts are chosen by the run. */
function followingRows(model: LoadedModel): ReadonlyMap<string, MatrixRows> {
  const { dims, layers } = model;
  const { forward } = model.family;
  const stored = new TensorLookup(nativeOf(model), dims, forward.experts(dims), runTensors(model).values());
  const main = layers.filter(({ stack }) => stack === "main");
  const products: (MatrixRows | null)[] = main.flatMap((layer) =>
    forward.block(layer.kind, dims).flatMap((stage) => {
      if (stage.op === "experts") return [null];
      if (stage.op !== "linear") return [];
      return stored.parts(stored.layer(layer), [stage.to].flat()).map((part) => matmulTask(part));
    }),
  );
  products.push(...stored.parts(stored.outside("head"), ["logits"]).map((part) => matmulTask(part)));
  return new Map(
    products.slice(1).flatMap((next, i) => {
      const before = products[i];
      return next === null || before == null ? [] : [[tensorKey(before.tensor), next]];
    }),
  );
}

/** Next step in errors of models that cannot run. */
const WITHOUT_PASS = { next: "use `verify` bytes, which runs no forward pass" };

function nativeOf({ family, dialect }: MatchedModel): Native {
  const native = family.forward.natives.find((candidate) => candidate.dialect === dialect.id);
  if (native !== undefined) return native;
  throw new IsologitError(
    "UNSUPPORTED",
    `${family.id} does not run in the dialect ${dialect.id} yet`,
    {},
    WITHOUT_PASS,
  );
}

/** Checks that a model can run natively. @throws UNSUPPORTED, naming the dialect or the tensor, where it cannot */
export function refuseUnrunnable(model: LoadedModel): void {
  nativeOf(model);
}

/**
 * Bytes of weights that one run through these stacks reads, without the few rows of the token table.
 *
 * @param head the run computes logits; without them it reads only the vectors of the head, which are not counted
 */
export function runBytes(model: LoadedModel, stacks: readonly Layer["stack"][], head = true): number {
  const bytes = layerBytes(model);
  const layers = model.layers.filter(({ stack }) => stacks.includes(stack));
  return layers.reduce((sum, layer) => sum + bytes.of(layer), head ? bytes.head : 0);
}

/** Bytes of weights that a run reads for a layer, and for the head. */
export function layerBytes(model: LoadedModel): { of(layer: Layer): number; readonly head: number } {
  const { dims, family } = model;
  const tensors = runTensors(decodeWeights(model));
  const stored = new TensorLookup(nativeOf(model), dims, family.forward.experts(dims), tensors.values());
  const bytesIn = (blocks: readonly BlockNames[]) =>
    blocks
      .flatMap((names) => stored.all(names))
      .reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
  return {
    of: (layer) =>
      bytesIn([
        stored.layer(layer),
        ...(layer.stack === "mtp" && layer.inner === 0 ? [stored.step("mtpStart", layer)] : []),
        ...(layer.stack === "mtp" && layer.inner === layer.of - 1 ? [stored.step("mtpEnd", layer)] : []),
      ]),
    head: bytesIn([stored.outside("head")]),
  };
}
