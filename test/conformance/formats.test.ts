/** What every format must do, by one suite: a new one is admitted by a line in `formats/index.ts`. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Writer } from "../../formats/format.ts";
import { formats } from "../../formats/index.ts";
import { convert } from "../../src/api/convert.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { fileStore } from "../../src/io/file.ts";
import { digestsOf, watchedStore } from "../support/content.ts";
import { filesOf, workFolder } from "../support/goldens.ts";
import { hostileTo } from "../support/hostile.ts";
import { countedStore, memoryStore } from "../support/memory-store.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();

/**
 * Bytes of one tensor that opening may touch. An archive of torch.save is described at its end and begins with what
 * is described: 4 KiB of each are read at once. All others touch none.
 */
const TOUCHED: Readonly<Record<string, number>> = { nemo2: 8192, bridge: 8192, megatron: 8192 };

const MTP = { num_nextn_predict_layers: 2, mtp_hybrid_override_pattern: "*E" };
const MODELS: readonly [string, string, object, number?][] = [
  ["one Mamba layer", "M", {}],
  ["two, in several shards", "MM", {}, 20_000],
  ["one MLP, and a token table of half a megabyte", "-", { vocab_size: 4096 }],
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

describe.each(formats)("$id", (format) => {
  const others = formats.filter((other) => other !== format);
  const writer: Writer | undefined = format.writes;

  it.each(MODELS.map(([name]) => name).filter(() => writer !== undefined))("%s", async (name) => {
    const source = sources.get(name)!;
    const path = join(work, `${name} as ${format.id}${writer!.endings[0] ?? ""}`);
    await convert(source, path, { to: format.id, verify: "off", threads: 1 });

    const { store: counted, counts } = countedStore(await fileStore(path));
    const { store, payloadBytes } = watchedStore(counted);
    expect(await format.detect(store)).toBe("yes");
    for (const other of others) expect(await other.detect(store), other.id).toBe("no");

    counts.clear();
    const written = await format.read(store);
    const touched = TOUCHED[format.id] ?? 0;
    expect(payloadBytes(written.tensors), "bytes of one tensor").toBeLessThanOrEqual(touched);
    const read = [...counts.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    const stored = (await store.list()).reduce((sum, { size }) => sum + size, 0);
    const weights = written.tensors.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
    const lengths = 16 * counts.size; // a header's length is read before the header
    const ends = touched * written.tensors.length;
    expect(read, "bytes read to open it").toBeLessThanOrEqual(stored - weights + lengths + ends);
    for (const [file, { opened, closed }] of counts) expect(closed, file).toBe(opened);

    const original = await formats.find(({ id }) => id === "hf")!.read(await fileStore(source));
    if (writer!.config === "file") {
      expect(await digestsOf(written)).toEqual(await digestsOf(original));
      expect(written.config).toEqual(original.config);
    }
    expect(written.format).toBe(format.id);
    expect(written.dialect).toBe(writer!.dialect);

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
    const cases = await hostileTo(format.id);
    expect(cases.length).toBeGreaterThan(0);
    for (const { name, code, hostile } of cases) {
      const { store, counts } = countedStore(hostile);
      const started = performance.now();
      const refusal = await format.read(store).catch((error: unknown) => error);
      expect(refusal, name).toBeInstanceOf(IsologitError);
      expect(refusal, name).toMatchObject(code === undefined ? { exit: 3 } : { code, exit: 3 });
      expect(performance.now() - started, name).toBeLessThan(1000);
      for (const { opened, closed } of counts.values()) expect(closed, name).toBe(opened);
    }
  });
});
