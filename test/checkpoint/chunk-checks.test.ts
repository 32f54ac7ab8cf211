/** Chunks that are read whole, in whatever order, are compared with their checksums; those read in part are not. */
import { crc32 } from "node:zlib";
import { expect, it } from "vitest";
import { checkChunks, checkUndigestedChunks } from "../../src/checkpoint/chunk-checks.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import { codeOf, errorOf } from "../support/errors.ts";
import { memoryStore } from "../support/memory-store.ts";
import { randomFrom } from "../support/random.ts";

const CHUNK = 100;
const right = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) % 251);
/** Two tensors, [50, 300) and [400, 725), in chunks of 100 bytes. */
const seals = [
  [50, 250],
  [400, 325],
].map(([offset, size]) => {
  const count = Math.ceil(size! / CHUNK);
  const end = offset! + size!;
  const sums = Array.from({ length: count }, (_, i) => {
    return crc32(right.subarray(offset! + i * CHUNK, Math.min(end, offset! + (i + 1) * CHUNK)));
  });
  const what = `at ${offset}`;
  return { what, tensor: what, file: "f", offset: offset!, size: size!, crc32: { chunkBytes: CHUNK, sums } };
});

/** Reads spans of a file in which one byte may be another. */
async function reader(wrongAt: number | null) {
  const bytes = right.slice();
  if (wrongAt !== null) bytes[wrongAt]! ^= 4;
  const store = memoryStore("memory", new Map([["f", bytes]]));
  const checkpoint = checkChunks({ seals, store } as unknown as Checkpoint); // it looks at nothing else
  const source = await checkpoint.store.open("f");
  return (from: number, to: number) => source.readInto(new Uint8Array(to - from), from);
}

it("any wrong byte is found, whatever the order of the spans that cover all", async () => {
  const random = randomFrom(5);
  for (let round = 0; round < 200; round++) {
    const cuts = [...new Set([0, 1000, ...Array.from({ length: 12 }, () => random(1000))])].sort(
      (a, b) => a - b,
    );
    const spans = cuts.slice(1).map((to, i) => [cuts[i]!, to] as const);
    const shuffled = spans.map((span) => ({ span, key: random(1e9) })).sort((a, b) => a.key - b.key);
    const wrongAt = random(1000);
    const sealed = seals.find(({ offset, size }) => wrongAt >= offset && wrongAt < offset + size);
    const readAll = async (read: Awaited<ReturnType<typeof reader>>) => {
      for (const { span } of shuffled) await read(...span);
    };
    expect(await codeOf(async () => readAll(await reader(null)))).toBe("no error");
    const run = async () => readAll(await reader(wrongAt));
    if (sealed === undefined) await run();
    else {
      const offset = wrongAt - ((wrongAt - sealed.offset) % CHUNK);
      expect(await errorOf(run)).toMatchObject({
        code: "DIGEST_MISMATCH",
        at: { tensor: sealed.what, offset },
      });
    }
  }
});

it("rows that were read before the whole do not hide it", async () => {
  const read = await reader(420);
  await read(430, 440);
  await read(410, 425);
  expect(await codeOf(() => read(400, 600))).toBe("DIGEST_MISMATCH");
});

it("of a chunk that is read in part nothing is said, nor of bytes that no seal speaks of", async () => {
  const read = await reader(420);
  await read(400, 499);
  await read(0, 50);
  await read(300, 400);
  await read(725, 1000);
});

it("what is left of a chunk is read where that is asked, and of others nothing", async () => {
  for (const [wrongAt, code] of [
    [590, "DIGEST_MISMATCH"],
    [610, "no error"],
  ] as const) {
    const bytes = right.slice();
    bytes[wrongAt]! ^= 4;
    const store = memoryStore("memory", new Map([["f", bytes]]));
    const { checkpoint, complete } = checkUndigestedChunks({ seals, store } as unknown as Checkpoint); // as above
    await using source = await checkpoint.store.open("f");
    await source.readInto(new Uint8Array(10), 520);
    await source.readInto(new Uint8Array(10), 550);
    expect(await codeOf(() => complete(undefined))).toBe(code);
  }
});
