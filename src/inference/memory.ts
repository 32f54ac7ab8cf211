/** How much is read and computed at a time, within a budget of bytes. */

/** Bytes of weights read at a time, and of logits compared at a time. They change no bit of any result. */
export function partBytes(memoryBytes: number): number {
  return Math.min(MAX_PART_BYTES, Math.max(MIN_PART_BYTES, Math.floor(memoryBytes / 32 / 64) * 64));
}

/** Words of the vocabulary whose logits fit a block. */
export function blockWords(blockBytes: number, tokens: number): number {
  return Math.max(1, Math.floor(blockBytes / 4 / tokens));
}

/** Long enough for disks; the two to four a run, and its blocks of logits, stay small beside any budget. */
export const MAX_PART_BYTES = 8 * 1024 * 1024;

export const MIN_PART_BYTES = 64 * 1024;
