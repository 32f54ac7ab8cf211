import { crc32 } from "node:zlib";
import { describe, expect, it } from "vitest";
import { joinCrc32 } from "../../../formats/codec/crc32-join.ts";

/** Bytes without a pattern: SplitMix-like, seeded. */
function noise(size: number): Uint8Array {
  let state = 0x9e3779b9;
  return Uint8Array.from({ length: size }, () => {
    state = Math.imul(state ^ (state >>> 15), 0x85ebca6b) + 0x9e3779b9;
    return state >>> 24;
  });
}

describe("the CRC-32 of joined runs", () => {
  it.each([0, 1, 7, 8, 9, 63, 64, 65, 1000, 4096])("of %i bytes is that of the bytes", (size) => {
    const bytes = noise(size);
    for (const run of [1, 8, 64, 1000, 5000]) {
      const crcs: number[] = [];
      for (let at = 0; at < size; at += run) crcs.push(crc32(bytes.subarray(at, at + run)));
      expect(joinCrc32(crcs, size, run), `in runs of ${run}`).toBe(crc32(bytes));
    }
  });

  it("is the same however the runs are grouped, beyond 2^32 bytes too", () => {
    const gibi = 1024 ** 3;
    const [a, b] = [crc32(noise(10)), crc32(noise(20))]; // of runs that could be a GiB long
    const four = joinCrc32([a, b, a, b], 4 * gibi, gibi);
    expect(joinCrc32([four, b], 5 * gibi, 4 * gibi)).toBe(joinCrc32([a, b, a, b, b], 5 * gibi, gibi));
    expect(joinCrc32([a, four], 5 * gibi, gibi)).toBe(joinCrc32([a, a, b, a, b], 5 * gibi, gibi));
  });
});
