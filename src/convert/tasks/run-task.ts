/** A task of a conversion that several processes run: it writes the tensors of some jobs, and nothing else. */
import type { TensorDigests } from "../../../formats/format.ts";
import { tensorKey } from "../../core/checkpoint.ts";
import { bytesOf } from "../../core/dtype.ts";
import { Sources } from "../../core/read.ts";
import { bytesOfJob } from "../held-tensors.ts";
import { findFinishedTensors } from "../resume.ts";
import { isStored, writeJobs } from "../run.ts";
import { SealedSource } from "../tensors/sealed-source.ts";
import type { ConversionRun, Job } from "../types.ts";

/** What a run of a task did. */
interface TaskWork {
  /** number of tensors of the task */
  readonly tensors: number;
  /** number of those that an earlier run of the task wrote */
  readonly kept: number;
  /** bytes that this run read of the source */
  readonly bytesRead: number;
  /** bytes of tensors that this run wrote */
  readonly bytesWritten: number;
}

/**
 * Writes the tensors of some jobs, and the scales that are computed with them. Other tasks write into the same files at the
 * same time, so no file is cut, cleared or removed. Afterwards the tensors are synced, and the journal names them.
 */
export async function runTask(running: ConversionRun, jobs: readonly Job[]): Promise<TaskWork> {
  const { plan, staging, signal, watch } = running;
  await using sources = new Sources(plan.source.checkpoint.store);
  const held = new SealedSource(plan.source, sources, signal);
  const places = new Map(plan.placement.tensors.map((place) => [place.name, place]));
  const names = jobs.flatMap(({ tensor, cast }) =>
    cast?.scaleTo === undefined ? [tensorKey(tensor)] : [tensorKey(tensor), cast.scaleTo],
  );
  const touched = new Set(names.map((name) => places.get(name)!.file)); // the plan has a place for each tensor
  for (const { path, size } of plan.placement.files) {
    if (touched.has(path)) await staging.create(path, size);
  }
  const stored = await findFinishedTensors(running);
  const left = jobs.filter((job) => !isStored(job, stored));
  const toRead = left.reduce((sum, job) => sum + bytesOfJob(job, plan.pool.heldBytes), 0);
  watch({ type: "phase", phase: "convert", totalBytes: toRead });
  const sealed = new Map<string, TensorDigests>(stored);
  await writeJobs({ running, sources, held, places, stored, sealed }, jobs);
  await staging.settle();
  return {
    tensors: jobs.length,
    kept: jobs.length - left.length,
    bytesRead: toRead,
    bytesWritten: left.reduce((sum, { tensor }) => sum + bytesOf(tensor.dtype, tensor.shape), 0),
  };
}
