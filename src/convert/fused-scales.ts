/** One scale for the weights of a layer that engines join into one tensor, where `fuseScales` asks for it. */
import { tensorKey } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import type { Job } from "./types.ts";

/**
 * Lets weights share a scale: q, k and v of a layer, and gate and up of an MLP or an expert, as far as they are cast to FP8.
 * With different scales an engine takes the largest and rounds the codes of the others a second time.
 *
 * @returns the jobs, in their order
 * @throws USAGE where no two such weights are cast to FP8 with one scale each
 */
export function shareScales(jobs: readonly Job[]): readonly Job[] {
  const groups = new Map<string, string[]>();
  for (const job of jobs) {
    const group = groupOf(job);
    if (group !== null) groups.set(group, [...(groups.get(group) ?? []), tensorKey(job.tensor)]);
  }
  if (![...groups.values()].some(({ length }) => length > 1)) {
    const message =
      "`fuseScales` has no meaning: neither q, k and v nor gate and up are cast to FP8 with one scale a tensor";
    throw new IsologitError("USAGE", message, {}, { next: "leave it out, or use `recipe` all-linear" });
  }
  return jobs.map((job) => {
    const others = (groups.get(groupOf(job) ?? "") ?? []).filter((key) => key !== tensorKey(job.tensor));
    return others.length === 0 ? job : { ...job, cast: { ...job.cast!, sharedWith: others } };
  });
}

function groupOf({ role, cast }: Job): string | null {
  const fused = role?.spec.fused;
  if (fused === undefined || cast?.scaleTo === undefined || cast.blocks !== undefined) return null;
  return `${role!.layer!.stack} ${role!.layer!.index} ${role!.expert ?? "-"} ${fused}`;
}
