/** Sizes of the parts in which weights are read and logits are computed, for a given memory budget. */

/**
 * Bytes of weights read at a time, and bytes of logits compared at a time. The size does not change any bit of a result.
 *
 * @param memoryBytes memory budget of the whole run
 */
export function partBytes(memoryBytes: number): number {
  return Math.min(MAX_PART_BYTES, Math.max(MIN_PART_BYTES, Math.floor(memoryBytes / 32 / 64) * 64));
}

/** Number of token ids whose F32 logits, for `tokens` positions, fit into `blockBytes`; at least 1. */
export function blockWords(blockBytes: number, tokens: number): number {
  return Math.max(1, Math.floor(blockBytes / 4 / tokens));
}

/** Long enough for efficient disk reads. A run holds two to six parts and its blocks of logits: little of any budget. */
const MAX_PART_BYTES = 8 * 1024 * 1024;

const MIN_PART_BYTES = 64 * 1024;
