/** Deals prompts, and if one prompt alone needs too much, skipped layers, to as few passes as the memory allows. */
import { IsologitError } from "../../core/errors.ts";
import { groupPrompts, largestThat } from "../../inference/prompt-groups/groups.ts";
import type { PassPlan } from "./pass.ts";

/** Bytes of buffers that a pass over prompts of these lengths needs with so many skipped layers. */
type PassBytes = (lengths: readonly number[], skips: number) => Promise<number>;

/**
 * Each pass has as many of the next prompts as fit, with all skipped layers. A prompt is never divided, because a state cannot
 * be cut: if a prompt does not fit with all skipped layers, these are divided evenly among several passes of that prompt.
 *
 * @param lengths tokens of each prompt
 * @param skips   numbers of the layers to skip
 * @throws PLAN_MEMORY where one prompt with one skipped layer needs more than `allowed`
 */
export async function planPasses(
  lengths: readonly number[],
  skips: readonly number[],
  allowed: number,
  passBytes: PassBytes,
): Promise<readonly PassPlan[]> {
  const groups = await groupPrompts(
    lengths.length,
    async (first, count) => (await passBytes(lengths.slice(first, first + count), skips.length)) <= allowed,
  );
  const passes: PassPlan[] = [];
  for (const { first, count } of groups) {
    const prompts = Array.from({ length: Math.max(1, count) }, (_, i) => first + i);
    if (count > 0) passes.push({ prompts, skips, observes: true });
    else passes.push(...(await divideSkips(prompts, lengths[first]!, skips, allowed, passBytes)));
  }
  return passes;
}

async function divideSkips(
  prompts: readonly number[],
  tokens: number,
  skips: readonly number[],
  allowed: number,
  passBytes: PassBytes,
): Promise<readonly PassPlan[]> {
  const size = await largestThat(
    async (count) => (await passBytes([tokens], count)) <= allowed,
    skips.length,
  );
  if (size === 0) {
    const needed = await passBytes([tokens], Math.min(1, skips.length));
    const message = `prompt ${prompts[0]} with ${tokens} tokens needs ${needed} bytes of buffers; ${allowed} are allowed`;
    const next = "give shorter prompts, or allow more `memoryBytes`";
    throw new IsologitError("PLAN_MEMORY", message, {}, { next });
  }
  const groups = Math.ceil(skips.length / size);
  return Array.from({ length: groups }, (_, i) => ({
    prompts,
    skips: skips.slice(
      Math.floor((i * skips.length) / groups),
      Math.floor(((i + 1) * skips.length) / groups),
    ),
    observes: i === 0,
  }));
}
