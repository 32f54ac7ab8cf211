/** Pseudo-random numbers that are the same on every machine. */

/** 2^64 divided by the golden ratio. */
export const GOLDEN = 0x9e3779b97f4a7c15n;

/**
 * SplitMix64: a function that returns the next 64-bit word of the sequence.
 *
 * @see Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"
 */
export function splitMix64(seed: number | bigint): () => bigint {
  let state = BigInt.asUintN(64, BigInt(seed));
  return () => {
    state = BigInt.asUintN(64, state + GOLDEN);
    let z = state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  };
}
