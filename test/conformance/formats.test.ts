/** What every format must do, by one suite: a new one is admitted by a line in `formats/index.ts`. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Writer } from "../../formats/define.ts";
import { formats } from "../../formats/index.ts";
import { convert } from "../../src/convert/convert.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { readRange } from "../../src/core/io.ts";
import { extentsOf } from "../../src/core/read.ts";
import { sha256 } from "../../src/core/root.ts";
import { fileStore } from "../../src/io/file.ts";
import { countedStore, memoryStore } from "../../src/io/memory.ts";
import { filesOf, workFolder } from "../goldens.ts";
import { smallModel } from "../small.ts";

const work = workFolder();
const fixtures = new URL("../../fixtures/hostile/", import.meta.url).pathname;

/** Folders of `fixtures/hostile` that each format must refuse, file by file. */
const HOSTILE: Readonly<Record<string, string>> = { packed: "packed", hf: "safetensors" };

const MTP = { num_nextn_predict_layers: 2, mtp_hybrid_override_pattern: "*E" };
const MODELS: readonly [string, string, object, number?][] = [
  ["one Mamba layer", "M", {}],
  ["two, in several shards", "MM", {}, 20_000],
  ["one MLP", "-", {}],
  ["one attention layer", "*", { head_dim: 40, num_key_value_heads: 1 }],
  ["one mixture of experts", "E", {}],
  [
    "experts behind a latent projection, and prediction layers",
    "ME*E-",
    { moe_latent_size: 24, ...MTP },
    60_000,
  ],
];
const sources = new Map<string, string>();
for (const [name, pattern, config, maxShardBytes] of MODELS) {
  sources.set(name, await smallModel(join(work, name), pattern, { ...config }, maxShardBytes));
}

/** Tensors by name, with their type, shape and digest of their bytes. */
async function contentOf({ store, tensors }: Checkpoint): Promise<ReadonlyMap<string, string>> {
  const content = new Map<string, string>();
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    const bytes = new Uint8Array(bytesOf(dtype, shape));
    const count = shape.reduce((product, n) => product * n, 1);
    for (const { file, offset, to, size } of extentsOf(tensor, 0, count)) {
      await using source = await store.open(file);
      bytes.set(await readRange(source, offset, size), to);
    }
    content.set(name, `${dtype} [${shape}] ${sha256(bytes)}`);
  }
  return content;
}

describe.each(formats)("$id", (format) => {
  const others = formats.filter((other) => other !== format);
  const writer: Writer | undefined = format.writes;

  it.each(MODELS.map(([name]) => name).filter(() => writer !== undefined))("%s", async (name) => {
    const source = sources.get(name)!;
    const path = join(work, `${name} as ${format.id}${writer!.endings[0] ?? ""}`);
    await convert(source, path, { to: format.id, verify: "off", threads: 1 });

    const { store, counts } = countedStore(await fileStore(path));
    expect(await format.detect(store)).toBe("yes");
    for (const other of others) expect(await other.detect(store), other.id).toBe("no");

    counts.clear();
    const written = await format.read(store);
    const read = [...counts.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    const stored = (await store.list()).reduce((sum, { size }) => sum + size, 0);
    const weights = written.tensors.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
    const lengths = 16 * counts.size; // a header's length is read before the header
    expect(read, "bytes read to open it").toBeLessThanOrEqual(stored - weights + lengths);
    for (const [file, { opened, closed }] of counts) expect(closed, file).toBe(opened);

    const original = await formats.find(({ id }) => id === "hf")!.read(await fileStore(source));
    expect(await contentOf(written)).toEqual(await contentOf(original));
    expect(written.config).toEqual(original.config);
    expect(written.format).toBe(format.id);

    const back = join(work, `${name} back from ${format.id}`);
    await convert(path, back, { to: "hf", verify: "off", threads: 1 });
    expect(filesOf(back)).toEqual(filesOf(source));
  });

  it("does not take what it did not write for its own", async () => {
    for (const source of sources.values()) {
      const answer = await format.detect(await fileStore(source));
      expect(answer).toBe(format.id === "hf" ? "yes" : "no");
    }
    const endings = formats.flatMap(({ writes }) => writes?.endings ?? []);
    for (const ending of ["", ".bin", ...endings]) {
      for (const size of [0, 4, 4096]) {
        const store = memoryStore("zeros", new Map([[`zeros${ending}`, new Uint8Array(size)]]));
        expect(await format.detect(store), `${size} zeros${ending}`).toBe("no");
      }
    }
  });

  it("refuses its hostile files, in time", async () => {
    const folder = join(fixtures, HOSTILE[format.id] ?? format.id);
    const expected: Record<string, string | { code: string }> = JSON.parse(
      readFileSync(join(folder, "expected.json"), "utf8"),
    );
    const files = readdirSync(folder).filter((file) => file !== "expected.json");
    expect(files.length).toBeGreaterThan(0);
    for (const file of files) {
      const rule = expected[file] ?? expected[file.replace(/\.\w+$/, "")];
      const { store, counts } = countedStore(await fileStore(join(folder, file)));
      const started = performance.now();
      const refusal = await format.read(store).catch((error: unknown) => error);
      expect(refusal, file).toBeInstanceOf(IsologitError);
      expect(refusal, file).toMatchObject({ code: typeof rule === "string" ? rule : rule?.code, exit: 3 });
      expect(performance.now() - started, file).toBeLessThan(1000);
      for (const { opened, closed } of counts.values()) expect(closed, file).toBe(opened);
    }
  });
});
