import { expect, it } from "vitest";
import { readRange } from "../../src/core/io.ts";
import { countedStore, memoryStore } from "../support/memory-store.ts";

const files = new Map([
  ["b", Uint8Array.of(1, 2, 3)],
  ["a/c", Uint8Array.of()],
]);
const coded = (code: string) => expect.objectContaining({ code });

it("lists, reads and refuses like a folder", async () => {
  const store = memoryStore("m", files);
  expect(await store.list()).toEqual([
    { path: "a/c", size: 0 },
    { path: "b", size: 3 },
  ]);
  await using source = await store.open("b");
  expect([...(await readRange(source, 1, 2))]).toEqual([2, 3]);
  await expect(readRange(source, 1, 3)).rejects.toEqual(coded("TRUNCATED"));
  await expect(store.open("c")).rejects.toEqual(coded("NOT_FOUND"));
});

it("counts what is asked of it", async () => {
  const { store, counts } = countedStore(memoryStore("m", files));
  {
    await using source = await store.open("b");
    await readRange(source, 0, 1);
    await readRange(source, 0, 3);
    expect(counts.get("b")).toEqual({ opened: 1, closed: 0, reads: 2, bytes: 4 });
  }
  expect(counts.get("b")?.closed).toBe(1);
  expect(counts.has("a/c")).toBe(false);
});
