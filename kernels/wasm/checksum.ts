// CRC-32 of a long run: the run is replaced by a short one with the same remainder.
//
// x^300 + x^155 + x^117 + x^89 + 1 is a multiple of the polynomial P of CRC-32, and so is the same sum of powers of x^128, because
// squares of sums are sums of squares modulo 2. So a word of 16 bytes, whose bits are coefficients, may be removed if it is added to the
// words 145, 183, 211 and 300 places later. All words but the last 300 are removed; no multiple with five terms has a lower degree.

const WORD = 16;
const FIRST: usize = 145 * WORD;
const SECOND: usize = 183 * WORD;
const THIRD: usize = 211 * WORD;
const LAST: usize = 300 * WORD;

/** Words of a block; with those before it, it stays in the cache next to the core. */
const BLOCK: i32 = 1024;

// @ts-expect-error: decorators on functions are AssemblyScript
@inline
/** Removes the word at `from`: it goes 300 places after `before`, with what the words before it add to it. */
function remove(from: usize, before: usize): void {
  const far = v128.xor(v128.load(before), v128.load(before, LAST - THIRD));
  const near = v128.xor(v128.load(before, LAST - SECOND), v128.load(before, LAST - FIRST));
  v128.store(before, v128.xor(v128.load(from), v128.xor(near, far)), LAST);
}

/**
 * Writes 300 words with the remainder of `words` words. The first 4 bytes are added to `start`.
 *
 * @param words   more than 300
 * @param scratch 1,324 words
 * @returns       address of the 300 words
 */
export function foldCrc(at: usize, words: i32, start: u32, scratch: usize): usize {
  memory.fill(scratch, 0, LAST);
  store<u32>(scratch, start); // as if a word 300 places before the first one had been removed
  const to = scratch + LAST;
  let left = words - 300;
  while (left > 0) {
    const count = min(left, BLOCK);
    const end = (<usize>count) * WORD;
    let i: usize = 0;
    for (; i + 4 * WORD <= end; i += 4 * WORD) {
      remove(at + i, scratch + i);
      remove(at + i + 1 * WORD, scratch + i + 1 * WORD);
      remove(at + i + 2 * WORD, scratch + i + 2 * WORD);
      remove(at + i + 3 * WORD, scratch + i + 3 * WORD);
    }
    for (; i < end; i += WORD) remove(at + i, scratch + i);
    memory.copy(scratch, scratch + end, LAST);
    at += end;
    left -= count;
  }
  // a word that stays is added to none: each of these gets what was removed before all of them
  for (let i: usize = 0; i < LAST; i += WORD) {
    let word = v128.xor(v128.load(at + i), v128.load(scratch + i));
    if (i < FIRST) word = v128.xor(word, v128.load(to + i - FIRST));
    if (i < SECOND) word = v128.xor(word, v128.load(to + i - SECOND));
    if (i < THIRD) word = v128.xor(word, v128.load(to + i - THIRD));
    v128.store(to + i, word);
  }
  return to;
}
