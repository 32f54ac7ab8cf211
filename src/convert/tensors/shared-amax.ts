/** The magnitude that the FP8 scale of a tensor is computed from. */
import { readScale } from "../../checkpoint/scales/values.ts";
import { tensorKey } from "../../core/checkpoint.ts";
import type { Sources } from "../../core/read.ts";
import type { Job, Plan } from "../types.ts";

/**
 * Largest |w| of a tensor and of the tensors that share its scale, F32.
 *
 * @param amaxOf largest |stored value| of the elements that a job casts
 */
export async function sharedAmax(
  { jobs, source }: Plan,
  job: Job,
  sources: Sources,
  amaxOf: (job: Job) => Promise<number>,
): Promise<number> {
  const { sharedWith = [] } = job.cast!; // only casts have new scales
  const others = sharedWith.map((key) => jobs.find(({ tensor }) => tensorKey(tensor) === key)!);
  let amax = 0;
  for (const part of [job, ...others]) {
    // dialects with FP8 join no tensors, so the source has one scale
    const scales = [...new Set((part.cast!.sourceScales ?? []).map(({ scale }) => scale))];
    const only = scales.length === 1 ? await readScale(source.tensors.get(scales[0]!)!, sources) : 1;
    amax = Math.max(amax, (await amaxOf(part)) * only);
  }
  return Math.fround(amax);
}
