/** A checkpoint made ready to be compared or run: its roles, its scales' values, its native form. */
import { availableParallelism } from "node:os";
import { refuseBackend, selectBackend } from "../../kernels/backend/select.ts";
import type { Backend } from "../../kernels/kernel.ts";
import type { RunOptions } from "../api/options.ts";
import { matchCheckpoint } from "../checkpoint/load.ts";
import { pairScales, readScales, type ScaleTable } from "../checkpoint/scales.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { bytesOf, type DType } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { findSampledDifference } from "../core/first-difference.ts";
import { Sources } from "../core/read.ts";
import type { Native } from "../families/forward.ts";
import { families as allFamilies } from "../families/index.ts";
import { matchRoles, replicaError } from "../families/match.ts";
import type { Matched, Role } from "../families/model.ts";
import type { Layer } from "../families/structure.ts";
import { DEFAULT_MEMORY_BYTES } from "../workers/pool.ts";
import type { RowRounding } from "./rounding.ts";
import { ModelRunner } from "./runner.ts";
import { TensorLookup } from "./tensor-lookup.ts";
import type { WeightRounder } from "./weight-bands.ts";

export interface Paired {
  readonly matched: Matched;
  /** which stored tensor scales which, and which scales nothing reads */
  readonly pairs: ScaleTable;
}

export interface Ready extends Paired {
  /** stored tensor -> its scales, one for all of it or one a row */
  readonly scales: ReadonlyMap<string, Float32Array>;
}

/** The backend that a run asks for. */
export function backendFor(options: RunOptions): Promise<Backend> {
  const { backend = "auto", device } = options;
  const machine = { threads: threadsOf(options), memoryBytes: memoryOf(options) };
  return selectBackend({ backend, ...machine, ...(device !== undefined && { device }) });
}

/** @throws NOT_AVAILABLE, USAGE for one that is not there; nothing is opened */
export async function refuseAbsentBackend({ backend = "auto", device }: RunOptions): Promise<void> {
  await refuseBackend({ backend, ...(device !== undefined && { device }) });
}

export function threadsOf({ threads }: Pick<RunOptions, "threads">): number {
  return threads ?? availableParallelism();
}

export function memoryOf({ memoryBytes }: Pick<RunOptions, "memoryBytes">): number {
  return memoryBytes ?? DEFAULT_MEMORY_BYTES;
}

/** @throws what matching and pairing refuse; nothing is read */
export function paired(checkpoint: Checkpoint, { families = allFamilies }: RunOptions): Paired {
  const pairs = pairScales(checkpoint.tensors);
  return { matched: matchRoles(checkpoint, families, pairs.scaleTensors), pairs };
}

/** @throws what matching and pairing refuse, SCALE_INVALID; nothing but headers and scales is read */
export async function ready(checkpoint: Checkpoint, options: RunOptions): Promise<Ready> {
  const { matched, scales: pairs } = await matchCheckpoint(
    checkpoint,
    options.families ?? allFamilies,
    options.formats,
  );
  await using sources = new Sources(checkpoint.store);
  await refuseTiedApart(matched, sources);
  const scales = new Map<string, Float32Array>();
  for (const [weight, { tensor }] of pairs.scaleOf) {
    scales.set(weight, await readScales(matched.tensors.get(tensor)!, sources));
  }
  return { matched, pairs, scales };
}

/** @throws REPLICA_DIFFERS where a head that is stored is not the token table to which the config ties it, as far as samples tell */
async function refuseTiedApart({ replicas, tensors }: Matched, sources: Sources): Promise<void> {
  for (const replica of replicas.filter(({ tied }) => tied === true)) {
    const [one, other] = [tensors.get(replica.tensor)!, tensors.get(replica.of)!];
    if (one.pieces.length === 0) continue; // planned, and not there yet
    const index = await findSampledDifference(one, other, sources);
    if (index >= 0) throw replicaError(replica, index);
  }
}

/** How a side stores a role. */
export interface StoredRole {
  readonly dtype: DType;
  /** its `tensorKey` */
  readonly tensor: string;
}

/** A role's first tensor speaks for all: a plan joins no unlike ones. */
export function storedRole({ matched }: Paired, role: Role): StoredRole {
  const tensor = matched.roleSources.get(role.key)![0]!.of!;
  return { dtype: matched.tensors.get(tensor)!.dtype, tensor };
}

export interface RunnerRequest {
  readonly backend: Backend;
  readonly sources: Sources;
  readonly tokens: number;
  readonly roundings: ReadonlyMap<string, readonly RowRounding[]>;
  readonly rounder: WeightRounder;
  readonly bandBytes: number;
  readonly advance: (bytes: number) => void;
  readonly signal: AbortSignal | undefined;
}

export function createRunner(
  { matched, scales }: Pick<Ready, "matched" | "scales">,
  running: RunnerRequest,
): ModelRunner {
  const { dims, tensors, family } = matched;
  const scaleOf = new Map([...scales].map(([name, [scale]]) => [name, scale!]));
  return new ModelRunner({
    ...running,
    forward: family.forward,
    native: nativeOf(matched),
    dims,
    tensors,
    scaleOf,
  });
}

/** The next step where a forward pass cannot run. */
export const WITHOUT_PASS = { next: "use `verify` bytes, which runs no forward pass" };

function nativeOf({ family, dialect }: Matched): Native {
  const native = family.forward.natives.find((one) => one.dialect === dialect.id);
  if (native !== undefined) return native;
  throw new IsologitError(
    "UNSUPPORTED",
    `${family.id} does not run in the dialect ${dialect.id} yet`,
    {},
    WITHOUT_PASS,
  );
}

/** @throws UNSUPPORTED, naming the dialect or the tensor, when the forward pass cannot run */
export function refuseUnrunnable({ matched, pairs }: Paired): void {
  nativeOf(matched);
  for (const [tensor, { axis }] of pairs.scaleOf) {
    if (axis === 0) {
      throw new IsologitError(
        "UNSUPPORTED",
        "the forward pass knows one scale a tensor, not one a row",
        { tensor },
        WITHOUT_PASS,
      );
    }
  }
}

/** Bytes of weights that one run through these layers and the head reads; the few rows of the token table apart. */
export function runBytes(matched: Matched, stacks: readonly Layer["stack"][]): number {
  const { dims, tensors, family } = matched;
  const stored = new TensorLookup(nativeOf(matched), dims, family.forward.experts(dims), tensors.values());
  const places = matched.layers
    .filter(({ stack }) => stacks.includes(stack))
    .flatMap((layer) => [
      stored.layer(layer),
      ...(layer.stack === "mtp" && layer.inner === 0 ? [stored.step("mtpStart", layer)] : []),
      ...(layer.stack === "mtp" && layer.inner === layer.of - 1 ? [stored.step("mtpEnd", layer)] : []),
    ]);
  const read = [...places, stored.outside("head")].flatMap((place) => stored.all(place));
  return read.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
}
