/** `tie_word_embeddings: true` with the head not stored, stored as a copy, and stored otherwise. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { digestsOf } from "../support/content.ts";
import { type Arrays, changeConfig, changedGolden, convertForeign, saveArrays } from "../support/foreign.ts";
import { arraysOf, filesOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
let serial = 0;
const place = () => join(work, String(serial++));
const TABLE = "backbone.embeddings.weight";
const HEAD = "lm_head.weight";

const tied = async (change: (arrays: Arrays) => Arrays) =>
  changeConfig(await changedGolden("tiny", place(), change), { tie_word_embeddings: true });
const withoutHead = () => tied((arrays) => new Map([...arrays].filter(([name]) => name !== HEAD)));
const withCopy = () => tied((arrays) => new Map([...arrays, [HEAD, arrays.get(TABLE)!]]));

const written = (source: string, to: string, options: ConvertOptions = {}) =>
  convertForeign(source, place(), to, options);
const weightsOf = async (source: string) => await digestsOf(await openCheckpoint(source));
const tiesIn = async (source: string) =>
  (await check(source)).findings.filter(({ rule }) => rule === "tied-head").map(({ severity }) => severity);
const configOf = (folder: string) => JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));

describe("no head is stored", () => {
  it("the token table is the head, in a forward pass and in what is written", async () => {
    const source = await withoutHead();
    expect(await tiesIn(source)).toEqual(["error"]);
    const { out, warnings } = await written(source, "hf", { verify: "logits", tokens: 16 });
    expect(warnings).toMatch(`${TABLE} is written as ${HEAD} too`);
    const weights = await weightsOf(out);
    expect(weights.get(HEAD)).toBe(weights.get(TABLE));
    expect(await tiesIn(out)).toEqual(["note"]);
    const report = await verify(source, out, { threads: 1, tokens: 16 });
    expect(report.verdict).toBe("same");
    const untied = changeConfig((await written(out, "hf")).out, { tie_word_embeddings: false });
    expect((await verify(source, untied, { verify: "bytes", threads: 1 })).roots.b).toBe(report.roots.a);
  });

  it("comes home from a packed file byte for byte", async () => {
    const source = await withoutHead();
    const packed = await written(source, "packed");
    expect(filesOf((await written(packed.out, "hf")).out)).toEqual(filesOf(source));
  });

  it("comes home from NeMo with a head of its own, and a config that says so", async () => {
    const nemo = await written(await withoutHead(), "nemo2", { verify: "bytes" });
    const { out, warnings } = await written(nemo.out, "hf", { verify: "bytes" });
    expect(warnings).toMatch(/tie_word_embeddings is written as false/);
    expect(configOf(out).tie_word_embeddings).toBe(false);
    const weights = await weightsOf(out);
    expect(weights.get(HEAD)).toBe(weights.get(TABLE));
  });

  it("a recast keeps both alike, or is refused", async () => {
    const source = await withoutHead();
    const { out } = await written(source, "hf", { dtype: "f32", verify: "bytes" });
    const weights = await weightsOf(out);
    expect(weights.get(HEAD)).toMatch(/^F32/);
    expect(weights.get(HEAD)).toBe(weights.get(TABLE));
    await written(source, "hf", { dtype: "fp8-e4m3", verify: "bytes" });
    const recipe = join(work, "head.yaml");
    writeFileSync(recipe, "id: head\ncast: [head]\n");
    await expect(written(source, "hf", { dtype: "fp8-e4m3", recipe })).rejects.toMatchObject({
      code: "PLAN_IMPOSSIBLE",
      at: { tensor: HEAD },
    });
  });
});

describe("a head is stored as well", () => {
  it("as a copy it is read, and comes home", async () => {
    const source = await withCopy();
    expect(await tiesIn(source)).toEqual(["note"]);
    const packed = await written(source, "packed", { verify: "bytes" });
    expect(filesOf((await written(packed.out, "hf")).out)).toEqual(filesOf(source));
  });

  it("otherwise it is refused, and either way out works", async () => {
    const source = await tied((arrays) => arrays);
    expect(await tiesIn(source)).toEqual(["error"]);
    const refusal = {
      code: "REPLICA_DIFFERS",
      message: expect.stringMatching(
        /Transformers uses the stored head, vLLM and NVIDIA's code use the token table/,
      ),
      next: `set tie_word_embeddings to false to keep ${HEAD}, or remove it to make ${TABLE} the head`,
    };
    for (const level of ["off", "bytes", "logits"] as const)
      await expect(written(source, "packed", { verify: level })).rejects.toMatchObject(refusal);
    await expect(verify(source, golden("tiny"), { verify: "bytes", threads: 1 })).rejects.toMatchObject(
      refusal,
    );
    const path = join(source, "model.safetensors");
    changeConfig(source, { tie_word_embeddings: false });
    expect(await weightsOf(source)).toEqual(await weightsOf(golden("tiny")));
    await written(source, "packed");
    changeConfig(source, { tie_word_embeddings: true });
    saveArrays(path, new Map([...(await arraysOf(path))].filter(([name]) => name !== HEAD)));
    await written(source, "packed", { verify: "bytes" });
  });

  it("one element that no sample meets stops the run", async () => {
    const source = await tied((arrays) => {
      const { dtype, shape, bytes } = arrays.get(TABLE)!;
      const other = bytes.slice();
      other[2 * 10_001] = bytes[2 * 10_001]! ^ 1;
      return new Map([...arrays, [HEAD, { dtype, shape, bytes: other }]]);
    });
    await expect(written(source, "hf")).rejects.toMatchObject({
      code: "REPLICA_DIFFERS",
      message: expect.stringContaining("element 10001 differs"),
    });
    expect((await verify(source, source, { verify: "bytes", threads: 1 })).verdict).toBe("different");
  });

  it("of another type it is refused", async () => {
    const source = await tied((arrays) => {
      const scale = { dtype: "F32", shape: [1], bytes: new Uint8Array(Float32Array.of(1).buffer) } as const;
      const head = { dtype: "F8_E4M3", shape: [512, 64], bytes: new Uint8Array(512 * 64) } as const;
      return new Map([...arrays, [HEAD, head], [`${HEAD}_scale`, scale]]);
    });
    await expect(written(source, "packed")).rejects.toMatchObject({
      code: "REPLICA_DIFFERS",
      message: expect.stringMatching(/tie_word_embeddings is true, .*F8_E4M3, not BF16/),
    });
  });
});
