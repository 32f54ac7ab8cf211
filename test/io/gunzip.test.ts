/** A gzip file reads as the file inside, leaves nothing behind, and cannot fill the disk. */
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, it } from "vitest";
import { readRange } from "../../src/core/io.ts";
import { gunzipOnce } from "../../src/io/gunzip.ts";
import { memoryStore } from "../support/memory-store.ts";

const content = randomBytes(3_000_000);
const storeOf = (bytes: Uint8Array) => memoryStore("m", new Map([["x.nemo", bytes]]));
const leftovers = () =>
  readdirSync(tmpdir())
    .filter((name) => name.startsWith("isologit-spool-"))
    .sort();

let before: string[];
beforeAll(() => {
  before = leftovers();
});
afterAll(() => expect(leftovers()).toEqual(before));

it("any range of the inflated file, from several sources at once", async () => {
  const store = await gunzipOnce(storeOf(gzipSync(content)));
  expect(await store.list()).toEqual([{ path: "x.nemo", size: content.byteLength }]);
  const [a, b] = [await store.open("x.nemo"), await store.open("x.nemo")];
  await a[Symbol.asyncDispose]();
  expect(Buffer.compare(await readRange(b, 0, content.byteLength), content)).toBe(0);
  expect(Buffer.compare(await readRange(b, 1_234_567, 89), content.subarray(1_234_567, 1_234_656))).toBe(0);
  await expect(readRange(b, content.byteLength - 1, 2)).rejects.toMatchObject({ code: "TRUNCATED" });
  await expect(store.open("other")).rejects.toMatchObject({ code: "NOT_FOUND" });
});

it("a file that is no gzip, and a folder with one, stay as they are", async () => {
  const plain = storeOf(content);
  expect(await gunzipOnce(plain)).toBe(plain);
  const folder = memoryStore(
    "m",
    new Map([
      ["a.gz", gzipSync("a")],
      ["b", content],
    ]),
  );
  expect(await gunzipOnce(folder)).toBe(folder);
});

it("two gzip members are one file", async () => {
  const store = await gunzipOnce(storeOf(Buffer.concat([gzipSync("ab"), gzipSync("cd")])));
  await using source = await store.open("x.nemo");
  expect(Buffer.from(await readRange(source, 0, 4)).toString()).toBe("abcd");
});

it.each([
  ["more than there is room for", gzipSync(content), { maxBytes: 2_999_999 }, "LIMIT_EXCEEDED", "space"],
  [
    "a bomb",
    readFileSync(new URL("../../fixtures/hostile/pickles/gz-bomb.nemo", import.meta.url)),
    {},
    "LIMIT_EXCEEDED",
    "100 times",
  ],
  ["a gzip cut short", gzipSync(content).subarray(0, 2_000_000), {}, "TRUNCATED", "stops"],
  ["a gzip with a byte changed", gzipSync(content).fill(0, 1000, 1100), {}, "ARCHIVE_INVALID", "damaged"],
])("refuses %s", async (_, bytes, options, code, named) => {
  const error = await gunzipOnce(storeOf(bytes), options).catch((e: unknown) => e as Error);
  expect(error).toMatchObject({ code, at: { file: "x.nemo" } });
  expect((error as Error).message).toContain(named);
});

it("stops on request", async () => {
  const stopped = AbortSignal.abort();
  await expect(gunzipOnce(storeOf(gzipSync(content)), { signal: stopped })).rejects.toMatchObject({
    code: "INTERRUPTED",
  });
});
