/** What conversions write about FP8 weights: names and shapes of scales, both JSON files, what is left out and reported. */
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, type MockInstance, onTestFinished, vi } from "vitest";
import { check } from "../../src/api/check.ts";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { smallModel } from "../../src/conformance/small-model.ts";
import type { Call } from "../../src/workers/calls.ts";
import { BandWorker } from "../../src/workers/pool.ts";
import { type Arrays, changeConfig, convertForeign, saveArrays } from "../support/foreign.ts";
import { arraysOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
let serial = 0;
const place = () => join(work, String(serial++));
const genuine = (name: string) => new URL(`../../fixtures/fp8-dialects/${name}`, import.meta.url).pathname;
const TINY = golden("tiny");
const FP8 = { dtype: "fp8-e4m3", verify: "bytes" } as const;

async function written(source: string, options: ConvertOptions) {
  const { out, warnings, report } = await convertForeign(source, place(), "hf", options);
  const { quantization_config: declared } = JSON.parse(readFileSync(join(out, "config.json"), "utf8"));
  const beside = join(out, "hf_quant_config.json");
  return {
    ...{ out, warnings, declared, verdict: report.verification?.verdict },
    listed: existsSync(beside) ? JSON.parse(readFileSync(beside, "utf8")).quantization : undefined,
    arrays: await arraysOf(join(out, "model.safetensors")),
  };
}
const endings = (arrays: Arrays, ending: string) =>
  [...arrays.keys()].filter((name) => name.endsWith(ending));
const errorsOf = async (folder: string) =>
  (await check(folder)).findings.filter(({ severity }) => severity === "error");
/** A genuine folder with a scale that `name` holds afterwards. */
async function withScale(folder: string, name: string, shape: readonly number[], values: Float32Array) {
  const copy = place();
  cpSync(genuine(folder), copy, { recursive: true });
  const path = join(copy, "model.safetensors");
  const bytes = new Uint8Array(values.buffer);
  saveArrays(path, new Map([...(await arraysOf(path)), [name, { dtype: "F32", shape, bytes }]]));
  return copy;
}
const codesOf = (arrays: Arrays) =>
  Object.fromEntries(
    [...arrays].flatMap(([name, { dtype, bytes }]) =>
      dtype === "F8_E4M3" ? [[name, Buffer.from(bytes).toString("hex")]] : [],
    ),
  );

describe("a recast to FP8", () => {
  it("in the dialect fp8 has scales without dimensions, and says which engines read it", async () => {
    const { out, arrays, declared, warnings, verdict } = await written(TINY, { ...FP8, quantDialect: "fp8" });
    expect(verdict).toBe("within");
    expect(declared).toMatchObject({
      quant_method: "fp8",
      activation_scheme: "dynamic",
      weight_block_size: null,
    });
    expect(new Set(endings(arrays, ".weight_scale").map((name) => arrays.get(name)!.shape.length))).toEqual(
      new Set([0]),
    );
    expect(warnings).toMatch(/vLLM and SGLang read one weight_scale/);
    expect(await errorsOf(out)).toEqual([]);
  });

  it("has the same codes in every dialect", async () => {
    const usual = await written(TINY, FP8);
    const other = await written(TINY, { ...FP8, quantDialect: "fp8" });
    expect(codesOf(other.arrays)).toEqual(codesOf(usual.arrays));
  });

  it("is refused in the dialect modelopt, whose activations are static", async () => {
    await expect(written(TINY, { ...FP8, quantDialect: "modelopt" })).rejects.toMatchObject({
      code: "PLAN_IMPOSSIBLE",
      message: expect.stringContaining("input_scale"),
      next: expect.stringContaining("`quantDialect`"),
    });
  });

  it("under all-linear keeps the head and lists it; a recipe that casts it names it as a target", async () => {
    const all = await written(TINY, { ...FP8, recipe: "all-linear" });
    expect(all.arrays.get("lm_head.weight")?.dtype).toBe("BF16");
    expect(all.declared.ignore).toContain("lm_head");
    const recipe = join(work, "head.yaml");
    writeFileSync(recipe, "id: head\ncast: [mlp.*, head]\n");
    const head = await written(TINY, { ...FP8, recipe });
    expect(head.arrays.get("lm_head.weight")?.dtype).toBe("F8_E4M3");
    expect(head.declared.config_groups.group_0.targets).toEqual(["Linear", "lm_head"]);
    expect(head.warnings).toMatch(/lm_head.weight: the head is FP8/);
    await expect(written(TINY, { ...FP8, recipe, quantDialect: "fp8" })).rejects.toMatchObject({
      code: "PLAN_IMPOSSIBLE",
    });
  });

  it("of a static source agrees with itself: no input_scale where activations are dynamic, and that is reported", async () => {
    const { arrays, declared, warnings, out, listed } = await written(genuine("modelopt-fp8"), {
      ...FP8,
      recipe: "all-linear",
    });
    expect(endings(arrays, ".input_scale")).toEqual([]);
    expect(warnings).toMatch(/14 scales of activations, .*, left out/);
    expect(declared.config_groups.group_0.input_activations.dynamic).toBe(true);
    expect(endings(arrays, ".k_scale").concat(endings(arrays, ".v_scale"))).toHaveLength(4);
    expect(declared.kv_cache_scheme).toMatchObject({ num_bits: 8, type: "float", strategy: "tensor" });
    expect(listed).toBeUndefined();
    expect(await errorsOf(out)).toEqual([]);
  });
});

describe("a recast to FP8 with several scales a tensor", () => {
  it.each([
    ["compressed-tensors", "row", "ct-channel-dynamic"],
    ["compressed-tensors", "block", "ct-block-128"],
    ["modelopt", "row", "modelopt-pcpt"],
    ["modelopt", "block", "modelopt-pbwo"],
    ["modelopt", "mxfp8", "modelopt-mxfp8"],
  ] as const)(
    "%s by %s has the tensors of the real writer's %s, byte for byte",
    async (quantDialect, quantScales, name) => {
      const options = { dtype: "fp8-e4m3", keepEnds: 0, quantDialect, quantScales, verify: "off" } as const;
      const { arrays } = await written(TINY, options);
      const real = await arraysOf(join(genuine(name), "model.safetensors"));
      const isOurs = (key: string) => !/_proj/.test(key) || !/[qkvo]_proj/.test(key); // attention stays BF16 here
      const kept = (of: Arrays) => new Map([...of].filter(([key]) => isOurs(key)).sort());
      expect(kept(arrays)).toEqual(kept(real));
    },
  );

  it("fp8 by block has the scales of the codes under weight_scale_inv, and MXFP8 no name", async () => {
    const options = { dtype: "fp8-e4m3", quantDialect: "fp8", verify: "off" } as const;
    const { arrays, declared } = await written(TINY, { ...options, quantScales: "block" });
    expect(endings(arrays, ".weight_scale_inv").length).toBeGreaterThan(5);
    expect(declared.weight_block_size).toEqual([128, 128]);
    await expect(written(TINY, { ...options, quantScales: "mxfp8" })).rejects.toMatchObject({
      code: "PLAN_IMPOSSIBLE",
    });
  });

  it("is refused for E5M2", async () => {
    const asked = { dtype: "fp8-e5m2", quantScales: "row" } as const;
    await expect(convertForeign(TINY, place(), "hf", asked)).rejects.toMatchObject({
      code: "PLAN_IMPOSSIBLE",
    });
  });
});

describe("a recast to BF16 or F32", () => {
  it.each(["bf16", "f32"] as const)(
    "%s leaves out every scale and declaration, and reports it",
    async (dtype) => {
      const { arrays, declared, listed, warnings, verdict } = await written(genuine("modelopt-fp8"), {
        dtype,
        verify: "bytes",
      });
      expect(verdict).toBe("within");
      expect(endings(arrays, "scale")).toEqual([]);
      expect([declared, listed]).toEqual([undefined, undefined]);
      expect(warnings).toMatch(/14 scales of activations, .*, left out/);
      expect(warnings).toMatch(/4 scales of the KV cache, .*, left out/);
    },
  );

  it("removes a declaration that no weight deserves, and reports it", async () => {
    const source = place();
    cpSync(TINY, source, { recursive: true });
    const stale = JSON.parse(readFileSync(join(genuine("ct-tensor-static"), "config.json"), "utf8"));
    changeConfig(source, { quantization_config: stale.quantization_config });
    const { declared, warnings } = await written(source, { dtype: "bf16", verify: "bytes" });
    expect(declared).toBeUndefined();
    expect(warnings).toMatch(/config.json declares a quantization, but no weight is quantized/);
  });
});

describe("a translation between dialects", () => {
  it.each([
    ["modelopt-fp8", "compressed-tensors"],
    ["modelopt-fp8", "fp8"],
    ["ct-tensor-static", "modelopt"],
    ["ct-tensor-static", "fp8"],
    ["ct-tensor-dynamic", "fp8"],
    ["fp8-tensor-static", "modelopt"],
    ["fp8-tensor-hf", "compressed-tensors"],
    ["ct-channel-dynamic", "modelopt"],
    ["modelopt-pcpt", "compressed-tensors"],
    ["ct-block-128", "modelopt"],
    ["modelopt-pbwo", "fp8"],
    ["fp8-block-128", "compressed-tensors"],
    ["ct-mxfp8", "modelopt"],
    ["modelopt-mxfp8", "compressed-tensors"],
  ] as const)("of %s into %s changes no code and no scale", async (name, quantDialect) => {
    const before = await arraysOf(join(genuine(name), "model.safetensors"));
    const { arrays, declared, out } = await written(genuine(name), { quantDialect, verify: "bytes" });
    expect(codesOf(arrays)).toEqual(codesOf(before));
    const scalesOf = (of: Arrays) =>
      [...of]
        .flatMap(([key, { bytes }]) =>
          /scale(_inv)?$/.test(key) ? [Buffer.from(bytes).toString("hex")] : [],
        )
        .sort();
    expect(scalesOf(arrays)).toEqual(scalesOf(before));
    expect(declared.quant_method).toBe(quantDialect);
    expect(await errorsOf(out)).toEqual([]);
  });

  it("and back again gives the same tensors", async () => {
    const there = await written(genuine("modelopt-fp8"), {
      quantDialect: "compressed-tensors",
      verify: "bytes",
    });
    const back = await written(there.out, { quantDialect: "modelopt", verify: "bytes" });
    expect(back.arrays).toEqual(await arraysOf(join(genuine("modelopt-fp8"), "model.safetensors")));
    expect(back.listed.quant_algo).toBe("FP8");
    expect(back.listed.exclude_modules).toEqual(back.declared.ignore);
  });

  it.each([
    ["ct-tensor-dynamic", "modelopt", "static activations"],
    ["ct-channel-dynamic", "fp8", "one scale a row"],
    ["ct-mxfp8", "fp8", "MXFP8"],
    ["fp8-block-8x32", "compressed-tensors", "8 x 32"],
    ["ct-nvfp4", "modelopt", "NVFP4"],
    ["modelopt-mixed", "compressed-tensors", "NVFP4"],
  ] as const)("of %s into %s is refused", async (name, quantDialect, reason) => {
    await expect(written(genuine(name), { quantDialect, verify: "bytes" })).rejects.toMatchObject({
      code: "PLAN_IMPOSSIBLE",
      message: expect.stringContaining(reason),
    });
  });

  it("says where an FP8 cache was declared without scales, and where 128 divides no weight", async () => {
    const options = { quantDialect: "compressed-tensors", verify: "bytes" } as const;
    const { warnings, declared } = await written(genuine("modelopt-mxfp8"), options);
    expect(warnings).toMatch(/declares an FP8 KV cache and stores no scale/);
    expect(declared.kv_cache_scheme).toBeNull();
    const ragged = await written(genuine("fp8-block-128"), options);
    expect(ragged.warnings).toMatch(/and 13 more have rows or columns that 128 does not divide/);
  });

  it("has no meaning without FP8 weights", async () => {
    await expect(written(TINY, { quantDialect: "fp8" })).rejects.toMatchObject({ code: "USAGE" });
    await expect(written(TINY, { dtype: "bf16", quantDialect: "fp8" })).rejects.toMatchObject({
      code: "USAGE",
    });
  });
});

describe("scales of the KV cache", () => {
  const K = "backbone.layers.6.mixer.k_proj.k_scale";
  it.each([
    ["of several values", [32], new Float32Array(32).fill(0.01)],
    ["that are NaN", [], Float32Array.of(Number.NaN)],
  ] as const)("%s are left out, all of them, and the cache is not declared", async (_, shape, values) => {
    const source = await withScale("modelopt-fp8", K, shape, values);
    const options = { ...FP8, recipe: "all-linear", verify: "off" } as const;
    const { arrays, declared, warnings } = await written(source, options);
    expect([...endings(arrays, ".k_scale"), ...endings(arrays, ".v_scale")]).toEqual([]);
    expect(declared.kv_cache_scheme).toBeNull();
    expect(warnings).toMatch(/4 scales of the KV cache, .*layers.6.mixer.k_proj.k_scale/s);
  });

  it("that nothing declares are left out", async () => {
    const source = await withScale("ct-tensor-static", K, [1], Float32Array.of(0.1));
    const { arrays, warnings } = await written(source, { quantDialect: "fp8", verify: "bytes" });
    expect(endings(arrays, ".k_scale")).toEqual([]);
    expect(warnings).toMatch(/left out: the source declares no FP8 KV cache/);
  });
});

it("the scale covers every band of a tensor, in whatever order its worker answers", async () => {
  const model = await smallModel(place(), "-", { intermediate_size: 16_384 });
  const small = {
    dtype: "fp8-e4m3",
    recipe: "all-linear",
    threads: 1,
    memoryBytes: 4 * 2 ** 20,
    to: "hf",
  } as const;
  const real = BandWorker.prototype.call as (call: Call) => Promise<unknown>;
  const answered: number[] = [];
  const slow = vi.spyOn(BandWorker.prototype, "call") as unknown as MockInstance<
    (call: Call) => Promise<unknown>
  >;
  onTestFinished(() => slow.mockRestore());
  for (const lateOnes of [0, 1]) {
    let bands = 0;
    slow.mockImplementation(async function (this: unknown, call) {
      const isLate = call.op === "amax" && bands++ % 2 === lateOnes;
      const answer = await real.call(this, call);
      if (call.op === "amax") answered.push(Number(answer));
      if (isLate) await new Promise((wake) => setTimeout(wake, 30));
      return answer;
    });
    const report = await convert(model, place(), { ...small, verify: "bytes" });
    expect(report.verification?.verdict).toBe("within");
    expect(bands).toBe(4); // two of each matrix
  }
  expect(new Set(answered).size).toBeGreaterThan(2); // bands have different maxima, else the order would not matter
});
