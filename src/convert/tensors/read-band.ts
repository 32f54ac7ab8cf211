/** Reads the elements of a job, band by band, and says where in a tensor an error lies. */
import { storedKey } from "../../checkpoint/load.ts";
import { bitsOf } from "../../core/dtype.ts";
import { IsologitError, withLocation } from "../../core/errors.ts";
import { type Band, readElements } from "../../core/gather.ts";
import type { Sources } from "../../core/read.ts";
import type { BandBuffer } from "../../workers/pool.ts";
import type { ConversionRun, Job, Plan } from "../types.ts";

/** Where a tensor lies in a destination. */
export interface Place {
  readonly file: string;
  readonly offset: number;
}

/** Fills the start of a buffer with the elements [lo, hi) of a job, in the type of the source. */
export async function readBand(
  { plan, signal }: Pick<ConversionRun, "plan" | "signal">,
  sources: Sources,
  job: Job,
  band: Band,
  buffer: Pick<BandBuffer, "bytes">,
): Promise<void> {
  signal?.throwIfAborted();
  const width = bitsOf(job.sourceDtype) / 8;
  const target = buffer.bytes.subarray(0, (band.hi - band.lo) * width);
  await readElements(job.elementSource, band, plan.source.tensors, width, sources, target, signal);
}

/** The error with the first stored tensor that a job reads, and the file of that tensor. */
export function withSource({ source }: Plan, job: Job, error: unknown): unknown {
  const tensor = sourceTensor(job);
  if (tensor === undefined) return error; // nothing is read: the error names the written file
  return withLocation(error, { tensor, file: source.tensors.get(tensor)!.pieces[0]!.file });
}

/** The error of a worker with the index in the tensor in place of the index in the band. */
export function shiftIndex(error: unknown, lo: number): unknown {
  if (!(error instanceof IsologitError) || error.at.index === undefined) return error;
  const index = error.at.index + lo;
  return new IsologitError(error.code, `${error.message} at index ${index}`, { ...error.at, index });
}

/** The first stored tensor that a job reads; undefined if the destination is all padding. */
function sourceTensor({ elementSource, multiplied }: Job): string | undefined {
  const { moves, roles } = multiplied ?? elementSource;
  const role = moves.find(({ of }) => of !== null)?.of ?? undefined;
  return role === undefined ? undefined : storedKey(roles.get(role)![0]!.of!);
}
