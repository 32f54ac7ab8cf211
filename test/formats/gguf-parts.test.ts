/** A GGUF in several files: the tensors and the keys of the one file, in parts that name and number themselves as llama-gguf-split does. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { gguf } from "../../formats/gguf/format.ts";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { verify } from "../../src/api/verify.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import { fileStore } from "../../src/io/file.ts";
import { bytesIn } from "../support/content.ts";
import { filesOf, ggufGolden, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const MAX_BYTES = 100_000;
const run = { to: "gguf", backend: "wasm", threads: 1, tokens: 8 } as const;
const [one, parts] = [join(work, "one.gguf"), join(work, "parts")];
beforeAll(async () => {
  await convert(golden("tiny"), one, { ...run, verify: "off" });
  await convert(golden("tiny"), parts, { ...run, maxShardBytes: MAX_BYTES });
});

const namesIn = (folder: string) => readdirSync(folder).filter((name) => name.endsWith(".gguf"));
const opened = async (path: string) => await gguf.read(await fileStore(path));
/** Type and value of each key, in order. */
const keysOf = async (path: string) => {
  const { metadata } = await opened(path);
  return metadata!.map(({ key, type, count, value }) => ({ key, type, count, value }));
};

it("have the tensors of the one file, byte for byte and in its order", async () => {
  const [whole, divided] = [await opened(one), await opened(parts)];
  expect(divided.tensors.map(({ name }) => name)).toEqual(whole.tensors.map(({ name }) => name));
  for (const [i, tensor] of whole.tensors.entries()) {
    const part = divided.tensors[i]!;
    expect([part.dtype, part.shape]).toEqual([tensor.dtype, tensor.shape]);
    const [wanted, found] = [await bytesIn(whole.store, tensor), await bytesIn(divided.store, part)];
    expect(Buffer.compare(found, wanted), tensor.name).toBe(0);
  }
});

it("are as large as they may be, and not larger", () => {
  const names = namesIn(parts);
  const count = String(names.length).padStart(5, "0");
  expect(names.length).toBeGreaterThan(3);
  expect(names).toEqual(names.map((_, i) => `model-${String(i + 1).padStart(5, "0")}-of-${count}.gguf`));
  const sizes = names.map((name) => statSync(join(parts, name)).size);
  expect(sizes[0]).toBeGreaterThan(MAX_BYTES); // side files of the folder are in keys: it has no tensor
  for (const size of sizes.slice(1)) expect(size).toBeLessThanOrEqual(MAX_BYTES);
  for (const size of sizes.slice(1, -1)) expect(size).toBeGreaterThan(MAX_BYTES / 2); // no tensor has half of it
});

it("say of themselves what the parts of llama-gguf-split say; the keys of the model are in the first", async () => {
  const tensors = (await opened(one)).tensors.length;
  const names = namesIn(parts);
  const golden = ggufGolden("tiny-split");
  const theirs = (await keysOf(golden)).filter(({ key }) => key.startsWith("split."));
  const ours = (await keysOf(parts)).filter(({ key }) => key.startsWith("split."));
  const typesOf = (keys: typeof ours) => keys.map(({ key, type }) => [key, type]);
  expect(typesOf(ours)).toEqual(typesOf(theirs));
  expect(ours.map(({ value }) => value)).toEqual([0, tensors, names.length]);
  const { readGgufHeader } = await import("../../formats/codec/gguf/header.ts");
  for (const [i, name] of names.entries()) {
    await using source = await (await fileStore(join(parts, name))).open(name);
    const { metadata } = await readGgufHeader(source, name);
    const own = metadata.map(({ key, value }) => [key, value]);
    const wanted = [
      ["split.no", i],
      ["split.tensors.count", tensors],
      ["split.count", names.length],
    ];
    expect(i === 0 ? own.slice(-3) : own).toEqual(wanted);
  }
  const shared = (await keysOf(parts)).slice(0, -3).filter(({ key }) => key !== "isologit.origin.root");
  expect(shared).toEqual((await keysOf(one)).filter(({ key }) => key !== "isologit.origin.root"));
});

it("have a certificate beside them, and come back with every file as it was", async () => {
  expect(existsSync(join(parts, CERTIFICATE_FILE))).toBe(true);
  expect(await verify(parts, undefined, run)).toMatchObject({ verdict: "same" });
  const back = join(work, "back");
  await convert(parts, back, { to: "hf", verify: "off" });
  expect(filesOf(back)).toEqual(filesOf(golden("tiny")));
});

it("become one file, which names no parts, and one file becomes parts again", async () => {
  const [joined, again] = [join(work, "joined.gguf"), join(work, "again")];
  await convert(ggufGolden("tiny-split"), joined, { verify: "off" });
  expect((await keysOf(joined)).filter(({ key }) => key.startsWith("split."))).toEqual([]);
  await convert(joined, again, { ...run, verify: "off", maxShardBytes: MAX_BYTES });
  const names = async (path: string) => (await opened(path)).tensors.map(({ name }) => name);
  expect(await names(again)).toEqual(await names(joined));
});

describe("sizes", () => {
  const filesAt = async (options: ConvertOptions) =>
    (await plan(golden("tiny"), join(work, "planned"), { ...run, ...options })).files;

  it("a tensor that is larger has a part of its own", async () => {
    const files = await filesAt({ maxShardBytes: 1000 });
    expect(files.length).toBeGreaterThan(40);
    expect(Math.max(...files.slice(1).map(({ size }) => size))).toBeGreaterThan(20_000);
  });

  it("a model that fits is one part", async () => {
    const files = await filesAt({ maxShardBytes: 1e9 });
    expect(files.map(({ path }) => path)).toEqual(["model-00001-of-00001.gguf"]);
  });

  it("types of a kind of file decide them", async () => {
    const files = await filesAt({ maxShardBytes: MAX_BYTES, dtype: "q4_0" });
    expect(files.length).toBeLessThan(namesIn(parts).length);
  });

  it("a destination that is named as one file is refused", async () => {
    const asked = plan(golden("tiny"), join(work, "x.gguf"), { maxShardBytes: MAX_BYTES });
    await expect(asked).rejects.toMatchObject({
      code: "USAGE",
      next: "give the path of a folder, and `to` gguf",
    });
  });
});
