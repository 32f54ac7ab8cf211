/** Changes of an input by chance, from a seed. */
import { spoiltBytes } from "../mutate.ts";

type Random = (n: number) => number;

/** Sizes and counts that parsers trip over. */
const NUMBERS: readonly bigint[] = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0xffffn,
  0x7fffffffn,
  0xffffffffn,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];
const MAX_BYTES = 65_536;

/** Whole numbers below n, from a seed (mulberry32): millions are needed, and the generator of the tests computes with big integers. */
export function fastRandom(seed: number): Random {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % n;
  };
}

/** @param other another input of the corpus */
export function changed(bytes: Uint8Array, other: Uint8Array, random: Random): Uint8Array {
  let next = bytes;
  for (let times = 1 + random(3); times > 0; times--) next = changedOnce(next, other, random);
  return next.byteLength <= MAX_BYTES ? next : next.slice(0, MAX_BYTES);
}

function changedOnce(bytes: Uint8Array, other: Uint8Array, random: Random): Uint8Array {
  const at = random(bytes.byteLength + 1);
  switch (random(6)) {
    case 0: {
      const number = Buffer.alloc(8);
      number.writeBigUInt64LE(BigInt.asUintN(64, NUMBERS[random(NUMBERS.length)]! + BigInt(random(3) - 1)));
      const next = bytes.slice();
      next.set(number.subarray(0, Math.min([1, 2, 4, 8][random(4)]!, bytes.byteLength - at)), at);
      return next;
    }
    case 1: {
      const from = random(other.byteLength + 1);
      const part = other.subarray(from, from + 1 + random(64));
      return new Uint8Array(
        Buffer.concat([bytes.subarray(0, at), part, bytes.subarray(at + random(2) * part.byteLength)]),
      );
    }
    case 2: {
      const next = bytes.slice();
      if (at < next.byteLength) next[at]! ^= 1 << random(8);
      return next;
    }
    case 3: {
      const next = bytes.slice();
      if (at < next.byteLength) next[at] = random(256);
      return next;
    }
    default:
      return spoiltBytes(bytes, random);
  }
}
