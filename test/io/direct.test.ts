/** Writes past the page cache: the same bytes as other writes, wherever they begin and end. */
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { createSharedMemory } from "../../kernels/module.ts";
import { splitMix64 } from "../../src/core/random.ts";
import { DIRECT_BLOCK, directPart, hasDirectWrites } from "../../src/io/direct.ts";
import { StagedFiles } from "../../src/io/staged-files.ts";
import { isOpenDirect } from "../support/open-direct.ts";

const work = mkdtempSync(join(tmpdir(), "direct-"));
afterAll(() => rmSync(work, { recursive: true }));

const memory = createSharedMemory(2 ** 21);
const bytes = new Uint8Array(memory.buffer);
const next = splitMix64(1);
const below = (limit: number) => Number(next() % BigInt(limit));
for (let i = 0; i < bytes.length; i++) bytes[i] = below(256);

describe("the part of a write that goes past the page cache", () => {
  const at = (start: number, size: number) => bytes.subarray(start, start + size);

  it("is whole blocks of memory and of the file", () => {
    expect(directPart(at(DIRECT_BLOCK, 2 ** 18), 0)).toEqual([0, 2 ** 18]);
    expect(directPart(at(DIRECT_BLOCK + 5, 2 ** 18), 5)).toEqual([DIRECT_BLOCK - 5, 2 ** 18 - 5]);
    expect(directPart(at(2 * DIRECT_BLOCK - 1, 2 ** 18 + 1), 3 * DIRECT_BLOCK - 1)).toEqual([1, 2 ** 18 + 1]);
  });

  it.each([
    ["memory and file are not as far into a block", at(DIRECT_BLOCK, 2 ** 18), 1],
    ["the write is short", at(DIRECT_BLOCK, 2 * DIRECT_BLOCK - 1), 0],
    ["the memory may begin anywhere", new Uint8Array(2 ** 18), 0],
  ])("is nothing where %s", (_, part, offset) => {
    expect(directPart(part, offset)).toBeNull();
  });
});

describe.each([true, false])("a staged file, direct: %s", (isDirect) => {
  it("holds what was written, in any order and at any place", async () => {
    const data = join(work, String(isDirect));
    const files = new StagedFiles(data, "x", isDirect);
    const expected = new Uint8Array(1_800_001);
    await files.create("file", expected.byteLength);
    for (let round = 0; round < 40; round++) {
      const offset = below(900_000);
      const size = Math.min(below(1_000_000), expected.byteLength - offset);
      const shift = (offset - below(2)) & (DIRECT_BLOCK - 1); // every second write can be direct
      const part = bytes.subarray(DIRECT_BLOCK + shift, DIRECT_BLOCK + shift + size);
      await files.writeAt("file", offset, part);
      expected.set(part, offset);
    }
    if (isDirect && hasDirectWrites && !files.isDirectRefused)
      expect(isOpenDirect(join(data, "file"))).toBe(true);
    if (!isDirect) expect(isOpenDirect(join(data, "file"))).toBe(false);
    await files.sync();
    await files.close();
    expect(Buffer.compare(await readFile(join(data, "file")), expected)).toBe(0);
  });
});
