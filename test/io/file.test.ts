import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readRange } from "../../src/core/io.ts";
import { fileStore } from "../../src/io/file.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "isologit-file-"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function put(path: string, content: string | Uint8Array = path): string {
  const where = join(root, path);
  mkdirSync(join(where, ".."), { recursive: true });
  writeFileSync(where, content);
  return where;
}
const paths = async (at = root) => (await (await fileStore(at)).list()).map(({ path }) => path);
const coded = (code: string, at: object = {}) =>
  expect.objectContaining({ code, at: expect.objectContaining(at) });

describe("a folder", () => {
  it("lists every file, sorted, with its size", async () => {
    for (const path of ["b", "a/z", "a/b/c", "B", "a.x"]) put(path);
    const files = await (await fileStore(root)).list();
    expect(files).toEqual(["B", "a.x", "a/b/c", "a/z", "b"].map((path) => ({ path, size: path.length })));
  });

  it("leaves out what is not of the checkpoint", async () => {
    for (const path of [".git/HEAD", "x.partial/journal", ".cache/huggingface/download/x.metadata"])
      put(path);
    for (const path of [".gitattributes", ".cache/mine", "y.partial"]) put(path);
    expect(await paths()).toEqual([".cache/mine", ".gitattributes", "y.partial"]);
  });

  it("follows links to files, as the Hub's cache has them", async () => {
    put("blobs/abc", "weights");
    mkdirSync(join(root, "snapshots/1"), { recursive: true });
    symlinkSync("../../blobs/abc", join(root, "snapshots/1/model.safetensors"));
    const store = await fileStore(join(root, "snapshots/1"));
    expect(await store.list()).toEqual([{ path: "model.safetensors", size: 7 }]);
    await using source = await store.open("model.safetensors");
    expect(Buffer.from(await readRange(source, 0, 7)).toString()).toBe("weights");
  });

  it("ends where folders are linked into a ring", async () => {
    put("a/x");
    symlinkSync("..", join(root, "a/up"));
    symlinkSync("a", join(root, "b"));
    expect(await paths()).toEqual(["a/x", "b/x"]);
  });

  it("says which link leads nowhere", async () => {
    symlinkSync("gone", join(root, "tokenizer.json"));
    const store = await fileStore(root);
    await expect(store.list()).rejects.toEqual(coded("NOT_FOUND", { file: "tokenizer.json" }));
    await expect(store.open("tokenizer.json")).rejects.toEqual(coded("NOT_FOUND"));
  });

  it("does not wait at a pipe", async () => {
    execFileSync("mkfifo", [join(root, "pipe")]);
    const store = await fileStore(root);
    await expect(store.list()).rejects.toEqual(coded("PATH_UNSAFE", { file: "pipe" }));
    await expect(store.open("pipe")).rejects.toEqual(coded("PATH_UNSAFE", { file: "pipe" }));
  });

  it.each(["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a\\b", "C:x", "a\0"])(
    "does not open %j",
    async (path) => {
      const store = await fileStore(root);
      await expect(store.open(path)).rejects.toEqual(coded("PATH_UNSAFE"));
    },
  );

  it("says what is not there", async () => {
    await expect(fileStore(join(root, "no"))).rejects.toEqual(coded("NOT_FOUND", { file: join(root, "no") }));
    await expect((await fileStore(root)).open("no")).rejects.toEqual(coded("NOT_FOUND", { file: "no" }));
  });
});

it("a file is a store of one", async () => {
  const where = put("w.safetensors", "12345");
  put("other");
  const store = await fileStore(where);
  expect(await store.list()).toEqual([{ path: "w.safetensors", size: 5 }]);
  await using source = await store.open("w.safetensors");
  expect(source.size).toBe(5);
  await expect(store.open("other")).rejects.toEqual(coded("NOT_FOUND", { file: "other" }));
});

describe("reading", () => {
  it("fills shared memory", async () => {
    put("x", "0123456789");
    await using source = await (await fileStore(root)).open("x");
    const target = new Uint8Array(new SharedArrayBuffer(8)).subarray(2, 6);
    await source.readInto(target, 5);
    expect([...target]).toEqual([...Buffer.from("5678")]);
  });

  it("past one piece gives the same bytes", async () => {
    const size = 64 * 1024 * 1024 + 12_345;
    const bytes = new Uint8Array(size);
    for (let i = 0; i < size; i += 997) bytes[i] = i;
    put("x", bytes);
    await using source = await (await fileStore(root)).open("x");
    const hash = (part: Uint8Array) => createHash("sha256").update(part).digest("hex");
    expect(hash(await readRange(source, 1, size - 1))).toBe(hash(bytes.subarray(1)));
  });

  it("past the end is an error that names the end", async () => {
    put("x", "123");
    await using source = await (await fileStore(root)).open("x");
    await expect(readRange(source, 2, 2)).rejects.toEqual(coded("TRUNCATED", { file: "x", offset: 3 }));
    expect(await readRange(source, 3, 0)).toHaveLength(0);
  });

  it("a file that shrinks, changes or is replaced is an error", async () => {
    const where = put("x", "123456");
    const store = await fileStore(root);
    await using source = await store.open("x");
    truncateSync(where, 4);
    await expect(readRange(source, 2, 4)).rejects.toEqual(coded("FILE_CHANGED", { file: "x" }));
    await expect(store.open("x")).rejects.toEqual(coded("FILE_CHANGED", { file: "x" }));

    const second = put("y", "123456");
    await using other = await store.open("y");
    writeFileSync(second, "654321");
    utimesSync(second, 1, 1);
    await expect(readRange(other, 0, 6)).rejects.toEqual(coded("FILE_CHANGED", { file: "y" }));
  });

  it("is finished before the source is closed", async () => {
    put("x", "123");
    const target = new Uint8Array(3);
    const source = await (await fileStore(root)).open("x");
    const reading = source.readInto(target, 0);
    await source[Symbol.asyncDispose]();
    await reading;
    expect([...target]).toEqual([...Buffer.from("123")]);
  });

  it("stops on request", async () => {
    put("x", "123");
    await using source = await (await fileStore(root)).open("x");
    const stopped = source.readInto(new Uint8Array(3), 0, AbortSignal.abort());
    await expect(stopped).rejects.toEqual(coded("INTERRUPTED"));
  });
});
