/** Models whose tensors are named as libraries hold them in memory: what is read, what is written, what comes home. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { digestsOf } from "../support/content.ts";
import {
  type Arrays,
  changeConfig,
  changedGolden,
  convertForeign,
  saveArrays,
  saveIndex,
  saveShards,
} from "../support/foreign.ts";
import { arraysOf, filesOf, golden, type StoredArray, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";

const work = workFolder();
let serial = 0;
const place = () => join(work, String(serial++));

const prefixed = (arrays: Arrays): Arrays =>
  new Map([...arrays].map(([name, array]) => [name.replace("backbone.", "model."), array]));

/** A layer's experts as two tensors, as Transformers 5 holds them. */
function stacked(arrays: Arrays): Arrays {
  const found = new Map<string, StoredArray[]>();
  const rest = new Map<string, StoredArray>();
  for (const [name, array] of arrays) {
    const [, layer, expert, which] = /^(.*\.experts)\.(\d+)\.(\w+)\.weight$/.exec(name) ?? [];
    if (layer === undefined) {
      rest.set(name, array);
      continue;
    }
    const stack = found.get(`${layer}.${which}`) ?? [];
    stack[Number(expert)] = array;
    found.set(`${layer}.${which}`, stack);
  }
  for (const [name, stack] of found) {
    const { dtype, shape } = stack[0]!;
    const bytes = new Uint8Array(Buffer.concat(stack.map((one) => one.bytes)));
    rest.set(name, { dtype, shape: [stack.length, ...shape], bytes });
  }
  return rest;
}

const MODELS: readonly (readonly [string, string, (arrays: Arrays) => Arrays])[] = [
  ["model.*", "tiny", prefixed],
  [
    "model.* in one layer, and the singular embedding",
    "tiny",
    (arrays) =>
      new Map(
        [...arrays].map(([name, array]) => [
          name
            .replace("backbone.layers.3", "model.layers.3")
            .replace("backbone.embeddings", "model.embedding"),
          array,
        ]),
      ),
  ],
  ["stacked experts of backbone.*", "moe", stacked],
  ["model.* with stacked latent experts", "latent-moe", (arrays) => stacked(prefixed(arrays))],
];

const written = (source: string, to: string, options: ConvertOptions = {}) =>
  convertForeign(source, place(), to, options);
const weightsOf = async (source: string) => await digestsOf(await openCheckpoint(source));

describe.each(MODELS)("%s", (_, name, change) => {
  const source = changedGolden(name, place(), change);

  it("is the golden, by bytes and by a forward pass in its own names, every control caught", async () => {
    const report = await verify(golden(name), await source, { threads: 2, tokens: 24 });
    expect(report.verdict).toBe("same");
    expect(report.roots.a).toBe(report.roots.b);
    const { controls } = metricsWith(report, "logits", "controls");
    expect(controls.filter(({ caught }) => caught === true).length).toBeGreaterThan(20);
    const { findings } = await check(await source);
    expect(findings.map(({ rule }) => rule)).toContain("memory-spelling");
  });

  it("comes home from a packed file byte for byte, and is written anew under the published names", async () => {
    const packed = await written(await source, "packed");
    expect(filesOf((await written(packed.out, "hf")).out)).toEqual(filesOf(await source));
    const { out, warnings } = await written(await source, "hf");
    expect(await weightsOf(out)).toEqual(await weightsOf(golden(name)));
    expect(warnings).toMatch(/\d+ tensors, .* the first, are written under the published names/);
    expect(await weightsOf((await written(packed.out, "hf", { maxShardBytes: 1e6 })).out)).toEqual(
      await weightsOf(golden(name)),
    );
  });
});

it("to NeMo and home the names are the published ones", async () => {
  const source = await changedGolden("moe", place(), (arrays) => stacked(prefixed(arrays)));
  const nemo = await written(source, "nemo2");
  const home = await written(nemo.out, "hf");
  expect(await weightsOf(home.out)).toEqual(await weightsOf(golden("moe")));
});

it("a sharded folder of other names is cut anew", async () => {
  const source = await changedGolden("tiny", place(), prefixed);
  const arrays = await arraysOf(join(source, "model.safetensors"));
  const folder = await changedGolden("tiny", place(), (same) => same);
  rmSync(join(folder, "model.safetensors"));
  saveIndex(folder, saveShards(folder, arrays, 3));
  const { out } = await written(folder, "hf", { dtype: "f32" });
  expect([...filesOf(out).keys()].filter((path) => path.includes("safetensors"))).toEqual([
    "model.safetensors",
  ]);
});

describe("FP8 under names of memory", () => {
  it("stacked experts are cast apart, each with its scale", async () => {
    const source = await changedGolden("moe", place(), (arrays) => stacked(prefixed(arrays)));
    const cast = await written(source, "packed", { dtype: "fp8-e4m3", keepEnds: 0 });
    const plain = await written(golden("moe"), "packed", { dtype: "fp8-e4m3", keepEnds: 0 });
    expect((await verify(cast.out, plain.out, { verify: "bytes", threads: 1 })).roots).toEqual({
      a: expect.any(String),
      b: (await verify(plain.out, plain.out, { verify: "bytes", threads: 1 })).roots.a,
    });
    expect((await weightsOf(cast.out)).has("backbone.layers.1.mixer.experts.0.up_proj.weight_scale")).toBe(
      true,
    );
  });

  it("kept weights, their scales and what no forward pass reads are named alike in a new folder", async () => {
    const quantised = await written(golden("tiny"), "hf", { dtype: "fp8-e4m3" });
    const path = join(quantised.out, "model.safetensors");
    const arrays = new Map(await arraysOf(path));
    const scale = { dtype: "F32", shape: [], bytes: new Uint8Array(Float32Array.of(0.5).buffer) } as const;
    arrays.set("backbone.layers.3.mixer.k_proj.k_scale", scale);
    saveArrays(path, arrays);
    const source = (await written(quantised.out, "hf")).out;
    saveArrays(join(source, "model.safetensors"), prefixed(await arraysOf(path)));
    const home = await written(source, "hf");
    expect(await weightsOf(home.out)).toEqual(await weightsOf(quantised.out));
    const report = await verify(source, home.out, { verify: "bytes", threads: 1 });
    expect(report.verdict).toBe("same");
    const list = readFileSync(join(home.out, "config.json"), "utf8");
    expect(list).toContain('"backbone.layers.');
  });
});

it("buffers that no forward pass reads are named and left out", async () => {
  const name = "backbone.layers.3.mixer.rotary_emb.inv_freq";
  const buffer = { dtype: "F32", shape: [2], bytes: new Uint8Array(8) } as const;
  const source = await changedGolden("tiny", place(), (arrays) => new Map([...arrays, [name, buffer]]));
  expect((await check(source)).findings).toContainEqual(
    expect.objectContaining({ rule: "left-out", at: expect.objectContaining({ tensor: name }) }),
  );
  const { out, warnings } = await written(source, "hf");
  expect(warnings).toBe(`${name}: left out (buffers that no forward pass reads)`);
  expect(await weightsOf(out)).toEqual(await weightsOf(golden("tiny")));
  const packed = await written(source, "packed");
  expect(await weightsOf((await written(packed.out, "hf")).out)).toEqual(await weightsOf(golden("tiny")));
});

it.each([8, 128])(
  "a vocabulary of %i rows more names its likely cause, and the next step works",
  async (more) => {
    const source = await changedGolden(
      "tiny",
      place(),
      (arrays) =>
        new Map(
          [...arrays].map(([name, array]) => {
            if (!/embeddings|lm_head/.test(name)) return [name, array];
            const bytes = new Uint8Array(Buffer.concat([array.bytes, Buffer.alloc(more * 64 * 2)]));
            return [name, { ...array, shape: [512 + more, 64], bytes }];
          }),
        ),
    );
    const cause = `Likely cause: the config says vocab_size 512 where the weights fit ${512 + more}`;
    await expect(written(source, "packed")).rejects.toMatchObject({
      code: "SHAPE_MISMATCH",
      message: expect.stringContaining(cause),
      next: `set vocab_size to ${512 + more} in the config, if that is how the model was trained`,
    });
    expect((await check(source)).findings[0]!.message).toContain(cause);
    changeConfig(source, { vocab_size: 512 + more });
    await written(source, "packed");
  },
);

it("of experts that are stacked a fault elsewhere is the only finding", async () => {
  const source = await changedGolden("moe", place(), (arrays) => {
    const changed = new Map(stacked(arrays));
    changed.delete("backbone.norm_f.weight");
    return changed;
  });
  const { findings } = await check(source);
  const errors = findings.filter(({ severity }) => severity === "error");
  expect(errors.map(({ rule, at }) => `${rule} ${at.tensor}`)).toEqual([
    "tensor-missing backbone.norm_f.weight",
  ]);
});
