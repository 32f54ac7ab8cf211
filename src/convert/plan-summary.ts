/** A plan for people and for checks: its tensors, the destination as a checkpoint, and the bytes it moves. */

import { storedKey } from "../checkpoint/load.ts";
import { type Checkpoint, type Tensor, tensorKey } from "../core/checkpoint.ts";
import { bytesOf } from "../core/dtype.ts";
import { widen } from "../core/float.ts";
import { bytesOfJob } from "./held-tensors.ts";
import type { Job, Plan, PlannedTensor } from "./types.ts";

/**
 * The tensors of a plan for people to read.
 *
 * @param stored the tensors of the source as it is stored
 */
export function plannedTensors(
  plan: Plan,
  stored: ReadonlyMap<string, Pick<Tensor, "dtype">>,
): readonly PlannedTensor[] {
  return plan.jobs.map(({ tensor, role, elementSource, multiplied, sourceDtype, why }) => {
    const { moves, roles } = multiplied ?? elementSource;
    const from = moves
      .flatMap(({ of }) => (of === null ? [] : (roles.get(of) ?? [])))
      .map(({ of }) => storedKey(of!)); // moves from stored tensors hold no padding
    return {
      name: tensorKey(tensor),
      role: role?.spec.role ?? "scale",
      layer: role?.layer?.index ?? null,
      from: [...new Set(from)].join(", "),
      dtype: tensor.dtype,
      sourceDtype: stored.get(from[0] ?? "")?.dtype ?? sourceDtype,
      shape: tensor.shape,
      bytes: bytesOf(tensor.dtype, tensor.shape),
      why,
    };
  });
}

/** The calibrated scales of a plan, by the names of their tensors. */
export function knownScales({ known }: Plan): Readonly<Record<string, number>> {
  return Object.fromEntries([...known].map(([name, bytes]) => [name, widen("F32", bytes)[0]!]));
}

/** The destination as a checkpoint, without bytes and side files. */
export function plannedCheckpoint({ source, manifest }: Plan): Checkpoint {
  const { config, dialect } = manifest;
  const tensors = manifest.tensors.map((tensor) => ({ ...tensor, pieces: [] }));
  const { store, format } = source.checkpoint;
  return { format, config, dialect, tensors, objects: [], sidecars: [], weightFiles: [], recasts: [], store };
}

/** Bytes that a run of the plan reads. */
export function bytesRead(plan: Plan): number {
  const tensors = plan.jobs.reduce((sum, job) => sum + bytesOfJob(job, plan.pool.heldBytes), 0);
  return plan.placement.copies.reduce((sum, { from }) => sum + from.size, tensors);
}

/** What an earlier run read and wrote, and a resumed run need not. */
export interface KeptBytes {
  readonly read: number;
  readonly written: number;
}

/** @param finished jobs whose tensors an earlier run wrote */
export function keptBytes(plan: Plan, finished: readonly Job[]): KeptBytes {
  const sum = (bytes: (job: Job) => number) => finished.reduce((total, job) => total + bytes(job), 0);
  return {
    read: sum((job) => bytesOfJob(job, plan.pool.heldBytes)),
    written: sum(({ tensor }) => bytesOf(tensor.dtype, tensor.shape)),
  };
}

export function bytesWritten(plan: Plan): number {
  return plan.placement.files.reduce((sum, { size }) => sum + size, 0);
}

/** Bytes of all tensors that a checkpoint stores. */
export function sourceBytes(checkpoint: Checkpoint): number {
  return checkpoint.tensors.reduce(
    (sum, { dtype, shape, name }) => sum + bytesOf(dtype, shape, { tensor: name }),
    0,
  );
}
