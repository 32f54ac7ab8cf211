/** What every format must do. Call it in a test file of vitest. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Format } from "../../formats/format.ts";
import { formats } from "../../formats/index.ts";
import { convert } from "../api/convert.ts";
import { bytesOf } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { readRange, type Store } from "../core/io.ts";
import { fileStore } from "../io/file.ts";
import type { Plugin } from "../plugins/plugin.ts";
import { digestsOf, filesOf, watchedStore } from "./content.ts";
import { countedStore, memoryStore } from "./memory-store.ts";
import { smallModel } from "./small-model.ts";

/** Files that no reader may take. */
export interface HostileFiles {
  readonly name: string;
  /** the code that they must give; absent: any of exit status 3 */
  readonly code?: string | undefined;
  readonly hostile: Store;
}

export interface FormatTrial {
  /** damaged or malicious files; those that are only cut short are made here */
  readonly hostile?: readonly HostileFiles[];
  /** bytes of one tensor that `read` may touch, such as the directory of an archive; default 0 */
  readonly touchedBytes?: number;
  /** models to write in place of the usual ones, for a format whose software does not run those */
  readonly models?: readonly SmallModel[];
}

const MTP = { num_nextn_predict_layers: 2, mtp_hybrid_override_pattern: "*E" };

/** A small model: its name, layer pattern, other keys of the config, and largest size of a weight file. */
type SmallModel = readonly [name: string, pattern: string, config: object, maxShardBytes?: number];

const MODELS: readonly SmallModel[] = [
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

/**
 * Writes small models in a format, reads them with headers alone, and converts them back without a changed byte. The format
 * must recognise its own files only, and refuse damaged files.
 *
 * @param format one of this version, or one of a plug-in
 * @example
 * formatConformance(oneFile);
 */
export function formatConformance(
  format: Format,
  { hostile = [], touchedBytes = 0, models = MODELS }: FormatTrial = {},
): void {
  const others = formats.filter((other) => other !== format);
  const own: Plugin = { name: "conformance", formats: [format] };
  const plugins = formats.includes(format) ? [] : [own];
  const writer = format.writes;

  describe(`format ${format.id}`, () => {
    const work = mkdtempSync(join(tmpdir(), "isologit-"));
    const sources = new Map(models.map(([name]) => [name, join(work, name)]));
    beforeAll(async () => {
      for (const [name, pattern, config, maxShardBytes] of models)
        await smallModel(join(work, name), pattern, { ...config }, maxShardBytes);
    });
    afterAll(() => rmSync(work, { recursive: true, force: true }));

    const written = async (name: string): Promise<string> => {
      const path = join(work, `${name} as ${format.id}${writer!.endings[0] ?? ""}`);
      const how = { to: format.id, verify: "off", threads: 1, overwrite: true, plugins } as const;
      await convert(sources.get(name)!, path, how);
      return path;
    };

    it.each(models.map(([name]) => name).filter(() => writer !== undefined))("%s", async (name) => {
      const source = sources.get(name)!;
      const path = await written(name);

      const { store: counted, counts } = countedStore(await fileStore(path));
      const { store, payloadBytes } = watchedStore(counted);
      expect(await format.detect(store)).toBe("yes");
      for (const other of others) expect(await other.detect(store), other.id).toBe("no");

      counts.clear();
      const checkpoint = await format.read(store);
      expect(payloadBytes(checkpoint.tensors), "bytes of one tensor").toBeLessThanOrEqual(touchedBytes);
      const read = [...counts.values()].reduce((sum, { bytes }) => sum + bytes, 0);
      const stored = (await store.list()).reduce((sum, { size }) => sum + size, 0);
      const weights = checkpoint.tensors.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
      const lengths = 16 * counts.size; // a header's length is read before the header
      const ends = touchedBytes * checkpoint.tensors.length;
      expect(read, "bytes read to open it").toBeLessThanOrEqual(stored - weights + lengths + ends);
      for (const [file, { opened, closed }] of counts) expect(closed, file).toBe(opened);

      const original = await formats.find(({ id }) => id === "hf")!.read(await fileStore(source));
      if (writer!.config === "file") {
        expect(await digestsOf(checkpoint)).toEqual(await digestsOf(original));
        expect(checkpoint.config).toEqual(original.config);
      }
      expect(checkpoint.format).toBe(format.id);
      expect(checkpoint.dialect).toBe(writer!.dialect);

      const back = join(work, `${name} back from ${format.id}`);
      await convert(path, back, { to: "hf", verify: "off", threads: 1, plugins });
      expect(filesOf(back)).toEqual(filesOf(source));
    });

    it("does not take what it did not write for its own", async () => {
      for (const source of sources.values()) {
        const answer = await format.detect(await fileStore(source));
        expect(answer).toBe(format.id === "hf" ? "yes" : "no");
      }
      const endings = [format, ...others].flatMap(({ writes }) => writes?.endings ?? []);
      for (const ending of ["", ".bin", ...endings]) {
        for (const size of [0, 4, 4096]) {
          const store = memoryStore("zeros", new Map([[`zeros${ending}`, new Uint8Array(size)]]));
          expect(await format.detect(store), `${size} zeros${ending}`).toBe("no");
        }
      }
    });

    it.runIf(writer !== undefined)("refuses weights that are one byte short", async () => {
      const whole = await filesIn(await fileStore(await written(models[0]![0])));
      const { tensors } = await format.read(memoryStore("whole", whole));
      const weights = new Set(tensors.flatMap(({ pieces }) => pieces.map(({ file }) => file)));
      expect(weights.size).toBeGreaterThan(0);
      for (const path of weights) {
        const short = new Map([...whole, [path, whole.get(path)!.slice(0, -1)]]);
        const refusal = await format.read(memoryStore("short", short)).catch((error: unknown) => error);
        expect(refusal, path).toMatchObject({ exit: 3 });
      }
    });

    it.runIf(hostile.length > 0)("refuses hostile files, in time", async () => {
      for (const { name, code, hostile: files } of hostile) {
        const { store, counts } = countedStore(files);
        const started = performance.now();
        const refusal = await format.read(store).catch((error: unknown) => error);
        expect(refusal, name).toBeInstanceOf(IsologitError);
        expect(refusal, name).toMatchObject(code === undefined ? { exit: 3 } : { code, exit: 3 });
        expect(performance.now() - started, name).toBeLessThan(1000);
        for (const { opened, closed } of counts.values()) expect(closed, name).toBe(opened);
      }
    });
  });
}

async function filesIn(store: Store): Promise<ReadonlyMap<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  for (const { path, size } of await store.list()) {
    await using source = await store.open(path);
    files.set(path, await readRange(source, 0, size));
  }
  return files;
}
