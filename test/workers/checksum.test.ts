/** The CRC-32 that a worker computes is that of zlib, for runs of every length and from every sum. */
import { crc32 } from "node:zlib";
import { expect, it } from "vitest";
import { createSharedMemory, FIRST_ADDRESS } from "../../kernels/module.ts";
import { splitMix64 } from "../../src/core/random.ts";
import { CHECKSUM_SCRATCH_BYTES, createChecksum } from "../../src/workers/checksum.ts";

const BYTES = 2 ** 20;
const memory = createSharedMemory(CHECKSUM_SCRATCH_BYTES + BYTES);
const checksum = await createChecksum(memory, FIRST_ADDRESS);
const all = new Uint8Array(memory.buffer, FIRST_ADDRESS + CHECKSUM_SCRATCH_BYTES, BYTES);
const next = splitMix64(3);
const words = new BigUint64Array(all.buffer, all.byteOffset, BYTES / 8);
for (let i = 0; i < words.length; i++) words[i] = next();

/** Around the least run, around the first blocks, and odd ones. */
const SIZES = [
  ...[0, 1, 15, 16, 4815, 4816, 19_199, 19_200, 19_201, 19_215],
  ...[1, 2, 3].flatMap((blocks) => [-16, -1, 0, 1, 16].map((more) => 4800 + blocks * 16_384 + more)),
  ...Array.from({ length: 40 }, () => Number(next() % BigInt(BYTES - 16))),
];

it("is that of zlib", () => {
  for (const size of SIZES) {
    for (const at of [0, 1, 8, 15]) {
      const bytes = all.subarray(at, at + size);
      for (const sum of [0, 1, 0x80000000, 0xffffffff])
        expect(checksum(bytes, sum), `${size} bytes at ${at} after ${sum}`).toBe(crc32(bytes, sum));
    }
  }
});

it("changes nothing but its scratch memory", () => {
  const before = Buffer.from(all);
  checksum(all);
  expect(before.equals(all)).toBe(true);
});
