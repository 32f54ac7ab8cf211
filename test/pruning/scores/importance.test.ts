/** Scores beside those of an independent program in float64, and what must not change them: memory, threads, formats. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { convert } from "../../../src/api/convert.ts";
import {
  type ImportanceOptions,
  type ImportanceReport,
  importance,
} from "../../../src/api/pruning/importance.ts";
import { digestContent } from "../../../src/certificate/content.ts";
import { loadModelWithScales } from "../../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../../src/checkpoint/open.ts";
import type { Event } from "../../../src/core/events.ts";
import { poolSize, WorkerPool } from "../../../src/workers/pool.ts";
import { fp8Dialects, golden, workFolder } from "../../support/goldens.ts";
import {
  calibrationPrompts,
  goldenScores,
  parent,
  planted,
  refuseScoresBeyond,
  scoresIn,
} from "../../support/minipuzzle.ts";

const work = workFolder();
let files = 0;

async function scored(source: string, options: Partial<ImportanceOptions> = {}) {
  const out = join(work, `scores-${files++}.safetensors`);
  const usual = { out, backend: "wasm", threads: 1, prompts: calibrationPrompts } as const;
  const report = await importance(source, { ...usual, ...options });
  return { out, report, scores: await scoresIn(out) };
}

describe("the golden", () => {
  let report: ImportanceReport;
  let scores: ReadonlyMap<string, Float64Array>;
  let out: string;
  const events: Event[] = [];

  beforeAll(async () => {
    ({ report, scores, out } = await scored(parent, { watch: (event) => events.push(event) }));
  });

  it("has every score within the limits of an F32 run", async () => {
    refuseScoresBeyond(scores, await goldenScores());
  });

  it("is read once, and its file names the root that a certificate would", async () => {
    const written = await convert(parent, join(work, "copy"), { to: "hf", verify: "bytes" });
    expect(report.source).toEqual({ address: parent, format: "hf", root: written.source.root });
    const header = readFileSync(out)
      .subarray(8, 2 ** 15)
      .toString();
    const record = JSON.parse(JSON.parse(/"isologit":("(?:[^"\\]|\\.)*")/.exec(header)![1]!));
    expect(record).toEqual({
      root: report.source.root,
      prompts: { count: 4, tokens: 136, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    const { size } = statSync(join(parent, "model.safetensors"));
    expect(report.passes).toBe(1);
    expect(report.bytesRead).toBeLessThan(1.02 * size);
  });

  it("reports what the file has", () => {
    const { layers, stability, prompts, tokens } = report;
    expect({ prompts, tokens }).toEqual({ prompts: 4, tokens: 136 });
    expect(layers.map(({ layer }) => layer)).toEqual([...Array(19).keys()]);
    expect(layers.map(({ kind }) => kind[0]).join("")).toBe("mmmmmammmmammmmammm");
    for (const [name, key] of [
      ["mse", "mse"],
      ["kl", "kl"],
      ["logits_nmse", "logitsNmse"],
      ["cosine", "cosine"],
      ["rank", "rank"],
    ] as const)
      expect(layers.map((layer) => layer[key])).toEqual([...scores.get(`layer.${name}`)!]);
    expect(stability!.layers).toBeCloseTo(0.968421052631579, 12);
  });

  it("announces its whole work, weights counted once for each run that uses them", () => {
    const phase = events.find((event) => event.type === "phase" && event.phase === "importance");
    const advanced = events.reduce(
      (sum, event) => sum + (event.type === "advance" && event.phase === "importance" ? event.bytes : 0),
      0,
    );
    const { totalBytes } = phase as { totalBytes: number };
    expect(advanced / totalBytes).toBeGreaterThan(0.99);
    expect(advanced / totalBytes).toBeLessThan(1.01);
  });

  it.each([
    ["in a pass for each prompt", { memoryBytes: 2 << 20 }, 4],
    ["in passes that skip some of the layers each", { memoryBytes: 1 << 20 }, 8],
    ["with two threads", { threads: 2 }, 1],
  ] as const)("has the same bits %s", async (_, options, passes) => {
    const other = await scored(parent, options);
    expect(other.report.passes).toBe(passes);
    expect(readFileSync(other.out).equals(readFileSync(out))).toBe(true);
  });

  it("has the same scores without runs that skip a layer, as far as they are there", async () => {
    const { report: cheap, scores: fewer } = await scored(parent, { cheap: true });
    expect([...fewer.keys()]).toEqual(
      [...scores.keys()].filter((name) => !/^layer\.(mse|kl|logits_nmse|rank)$/.test(name)),
    );
    for (const [name, values] of fewer) expect(values, name).toEqual(scores.get(name));
    expect(cheap.stability).toBeNull();
    expect(cheap.layers.map(({ mse, kl, logitsNmse, rank }) => [mse, kl, logitsNmse, rank])).toEqual(
      Array(19).fill([null, null, null, null]),
    );
  });
});

describe("other forms of the same model give the same scores", () => {
  it.each([
    ["packed", { to: "packed" }],
    ["megatron with two ranks", { to: "megatron", tp: 2 }],
  ] as const)("%s", async (name, options) => {
    const copy = join(work, `form-${options.to}`);
    await convert(parent, copy, { ...options, verify: "bytes" });
    const { scores, report } = await scored(copy);
    refuseScoresBeyond(scores, await goldenScores());
    expect(report.source.root).toBe((await scored(parent, { cheap: true })).report.source.root);
    expect(name).toBeTruthy();
  });

  it("FP8 codes count with their scale", async () => {
    const options = { dtype: "fp8-e4m3", recipe: "all-linear", verify: "bytes" } as const;
    const [codes, values] = [join(work, "codes"), join(work, "values")];
    await convert(parent, codes, { ...options, to: "hf" });
    await convert(codes, values, { to: "hf", dtype: "f32", verify: "bytes" });
    const [a, b] = [await scored(codes), await scored(values)];
    refuseScoresBeyond(a.scores, b.scores);
  });
});

it.each(["ct-channel-dynamic", "fp8-block-8x32", "ct-mxfp8", "ct-nvfp4", "modelopt-fp8"])(
  "the file names the root that a certificate would: %s",
  async (name) => {
    const model = await loadModelWithScales(await openCheckpoint(fp8Dialects(name)), {});
    await using pool = new WorkerPool(poolSize(2 ** 26, 1));
    const { root } = await digestContent(model, pool, () => {}, undefined);
    const out = join(work, `${name}.safetensors`);
    const report = await importance(fp8Dialects(name), { out, ids: [1, 2, 3], cheap: true, threads: 1 });
    expect(report.source.root).toBe(root);
  },
);

describe("dead parts of a model", () => {
  it("have scores of exactly 0", async () => {
    const { folder, layers, silent, unheard } = await planted(join(work, "planted"));
    const { scores } = await scored(folder);
    for (const layer of layers)
      for (const score of ["mse", "kl", "logits_nmse", "cosine"])
        expect(scores.get(`layer.${score}`)![layer], `${score} of layer ${layer}`).toBe(0);
    for (const [layer, channels] of Object.entries(silent))
      for (const score of ["preactivation", "activation", "contribution"])
        for (const channel of channels) expect(scores.get(`ffn.${score}.${layer}`)![channel]).toBe(0);
    for (const [layer, channels] of Object.entries(unheard)) {
      for (const channel of channels) {
        expect(scores.get(`ffn.contribution.${layer}`)![channel]).toBe(0);
        expect(scores.get(`ffn.activation.${layer}`)![channel]).toBeGreaterThan(0);
      }
    }
    expect(scores.get("layer.mse")!.filter((mse) => mse === 0)).toHaveLength(layers.length);
  });
});

const LONG: readonly number[] = Array(500).fill(7);

describe("is refused", () => {
  it.each([
    ["for an id outside the vocabulary", { prompts: [[1], [2, 512]] }, "USAGE", /prompt 1: token id 512/],
    ["for an empty prompt", { prompts: [[1], []] }, "USAGE", /prompt 1: no token id/],
    ["without prompts", { prompts: [] }, "USAGE", /no prompt/],
    ["for prompts beside ids", { ids: [1] }, "USAGE", /`prompts`/],
    [
      "in too little memory",
      { memoryBytes: 1 << 20, prompts: [[1], LONG] },
      "PLAN_MEMORY",
      /prompt 1 with 500 tokens/,
    ],
  ] as const)("%s", async (_, options, code, message) => {
    const refused = await scored(parent, options).then(
      () => null,
      (error) => error,
    );
    expect(refused?.code).toBe(code);
    expect(refused.message).toMatch(message);
  });

  it("where the file exists, which stays as it is", async () => {
    const { out } = await scored(golden("tiny"), { cheap: true, prompts: [[1, 2]] });
    const before = readFileSync(out);
    const again = { out, backend: "wasm", cheap: true, prompts: [[3, 4]] } as const;
    await expect(importance(golden("tiny"), again)).rejects.toMatchObject({ code: "DESTINATION_EXISTS" });
    expect(readFileSync(out).equals(before)).toBe(true);
    await importance(golden("tiny"), { ...again, overwrite: true });
    expect(readFileSync(out).equals(before)).toBe(false);
  });

  it("when it is stopped, and leaves no file", async () => {
    const stop = new AbortController();
    const out = join(work, "stopped.safetensors");
    const watch = (event: Event) => event.type === "layer" && event.layer === 3 && stop.abort();
    const options = {
      out,
      backend: "wasm",
      prompts: calibrationPrompts,
      signal: stop.signal,
      watch,
    } as const;
    await expect(importance(parent, options)).rejects.toThrow();
    expect(existsSync(out)).toBe(false);
    expect(readdirSync(work).filter((name) => name.startsWith("stopped"))).toEqual([]);
  });
});
