import { splitMix64 } from "../core/random.ts";

/** A seeded stream of whole numbers below n, for tests that walk a space. */
export function randomFrom(seed: number): (n: number) => number {
  const words = splitMix64(seed);
  return (n) => Number(words() % BigInt(n));
}
