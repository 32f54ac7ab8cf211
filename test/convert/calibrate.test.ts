/** What a conversion writes with `calibrate`: the tensors and descriptions of the real tools, and nothing else changes. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { verify } from "../../src/api/verify.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import type { QUANT_DIALECTS } from "../../src/plugins/quantization-dialect.ts";
import { errorOf } from "../support/errors.ts";
import {
  arraysOf,
  filesOf,
  floatsOf,
  golden,
  idsOf,
  type StoredArray,
  workFolder,
} from "../support/goldens.ts";

const work = workFolder();
let serial = 0;
const place = () => {
  const folder = join(work, String(serial++));
  mkdirSync(folder);
  return join(folder, "out");
};
const genuine = (name: string) => new URL(`../../fixtures/fp8-dialects/${name}`, import.meta.url).pathname;
const weightsOf = (folder: string) => arraysOf(join(folder, "model.safetensors"));
const configOf = (folder: string) => JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));

const TINY = golden("tiny");
const prompt = join(work, "ids.json");
const reference = await arraysOf(join(TINY, "reference.safetensors"));
writeFileSync(prompt, JSON.stringify(idsOf(reference.get("input_ids.len130")!)));

const QUICK = { backend: "wasm", threads: 1 } as const;
/** As the genuine folders: only attention, table and head are kept. */
const FP8 = { ...QUICK, to: "hf", dtype: "fp8-e4m3", keepEnds: 0 } as const;
const CALIBRATED = { ...FP8, calibrate: prompt } as const;

async function written(options: ConvertOptions, source = TINY) {
  const out = place();
  const warnings: string[] = [];
  const watch: ConvertOptions["watch"] = (event) => event.type === "warning" && warnings.push(event.message);
  const report = await convert(source, out, { ...options, watch });
  return { out, report, warnings, arrays: await weightsOf(out) };
}

const isActivationScale = (name: string) => /\.(input|k|v)_scale$/.test(name);
const typesOf = (arrays: ReadonlyMap<string, StoredArray>) =>
  Object.fromEntries([...arrays].map(([name, { dtype, shape }]) => [name, `${dtype} [${shape}]`]));

describe.each([
  ["compressed-tensors", "ct-tensor-static", 1e-4, {}],
  // Model-Optimizer calibrated in BF16
  ["modelopt", "modelopt-fp8", 2 ** -6, { kvCache: "fp8" }],
  ["fp8", "fp8-tensor-static", 1e-4, {}],
] as const)("%s", (quantDialect, name, bound, more) => {
  it(`writes the tensors of ${name}, with its scales of activations`, async () => {
    const { out, arrays, report } = await written({ ...CALIBRATED, ...more, quantDialect, verify: "bytes" });
    const theirs = await weightsOf(genuine(name));
    expect(typesOf(arrays)).toEqual(typesOf(theirs));
    const scales = [...theirs].filter(([tensor]) => isActivationScale(tensor));
    expect(scales.length).toBeGreaterThanOrEqual(14);
    for (const [tensor, array] of scales) {
      const [ours, their] = [arrays.get(tensor)!, array].map((stored) => floatsOf(stored)[0]!);
      expect(Math.abs(ours! / their! - 1), tensor).toBeLessThan(bound);
    }
    expect(report.verification?.verdict).toBe("within");
    const errors = (await check(out)).findings.filter(({ severity }) => severity === "error");
    expect(errors).toEqual([]);
  });

  it("differs from the recast without `calibrate` only in scales of activations and their description", async () => {
    const dynamic = quantDialect === "modelopt" ? "compressed-tensors" : quantDialect;
    const before = await written({ ...FP8, quantDialect: dynamic, verify: "bytes" });
    const after = await written({ ...CALIBRATED, ...more, quantDialect, verify: "bytes" });
    const codes = (arrays: ReadonlyMap<string, StoredArray>) =>
      new Map(
        [...arrays].flatMap(([tensor, { bytes }]) => (isActivationScale(tensor) ? [] : [[tensor, bytes]])),
      );
    expect(codes(after.arrays)).toEqual(codes(before.arrays));
  });
});

it("describes static activations, and an FP8 cache only where it was asked for", async () => {
  const declared = async (options: ConvertOptions) =>
    configOf((await written({ ...CALIBRATED, ...options, verify: "off" })).out).quantization_config;
  const tensors = await declared({});
  expect(tensors.config_groups.group_0.input_activations).toMatchObject({
    dynamic: false,
    strategy: "tensor",
  });
  expect(tensors.kv_cache_scheme).toBeNull();
  expect((await declared({ kvCache: "fp8" })).kv_cache_scheme).toMatchObject({ num_bits: 8, dynamic: false });
  expect(await declared({ quantDialect: "fp8" })).toMatchObject({ activation_scheme: "static" });
});

it("names the scales of the cache as each dialect's readers look for them", async () => {
  const names = async (quantDialect: (typeof QUANT_DIALECTS)[number]) => {
    const { arrays } = await written({ ...CALIBRATED, quantDialect, kvCache: "fp8", verify: "off" });
    return [...arrays.keys()].filter((name) => /\.[kv]_scale$/.test(name) && name.includes("layers.3."));
  };
  const module = "backbone.layers.3.mixer";
  expect(await names("compressed-tensors")).toEqual([`${module}.k_scale`, `${module}.v_scale`]);
  for (const dialect of ["modelopt", "fp8"] as const)
    expect(await names(dialect)).toEqual([`${module}.k_proj.k_scale`, `${module}.v_proj.v_scale`]);
});

it("is `within` by all rungs, and by `verify` of the written folder with a remark at most", async () => {
  const asked = await written({ ...CALIBRATED, tokens: 8, strict: true, kvCache: "fp8" });
  expect(asked.report.verification?.verdict).toBe("within");
  const { out } = await written({ ...CALIBRATED, verify: "off" });
  const again = await verify(TINY, out, { ...QUICK, tokens: 8, strict: true });
  expect(again.verdict).toBe("within");
  expect(again.findingDetails.every(({ severity }) => severity === "note")).toBe(true);
});

it("gives experts that got no token a scale, and warns of them", async () => {
  writeFileSync(join(work, "few"), "1 2 3");
  const options = { ...CALIBRATED, calibrate: join(work, "few"), verify: "bytes" } as const;
  const { arrays, warnings } = await written(options, golden("moe"));
  const fp8 = [...arrays].filter(([, { dtype }]) => dtype === "F8_E4M3").map(([name]) => name);
  const missing = fp8.filter((name) => !arrays.has(name.replace(/weight$/, "input_scale")));
  expect(missing).toEqual([]);
  expect(warnings.filter((text) => /^layer \d+: experts .* got no token/.test(text)).length).toBeGreaterThan(
    0,
  );
});

describe("the plan", () => {
  it("has one id for one prompt, in `plan` and in `convert`, and another id for another prompt or rule", async () => {
    const idOf = async (options: ConvertOptions) => (await plan(TINY, place(), { ...FP8, ...options })).id;
    writeFileSync(join(work, "other"), "1 2 3");
    const ids = [
      await idOf({}),
      await idOf({ calibrate: prompt }),
      await idOf({ calibrate: join(work, "other") }),
      await idOf({ calibrate: true }),
      await idOf({ calibrate: prompt, calibrateRule: "percentile" }),
      await idOf({ calibrate: prompt, kvCache: "fp8" }),
    ];
    expect(new Set(ids).size).toBe(ids.length);
    expect((await written({ ...CALIBRATED, verify: "off" })).report.plan).toBe(ids[1]);
  });

  it("reports the prompt and the scales that `convert` writes", async () => {
    const { calibration } = await plan(TINY, place(), { ...CALIBRATED, kvCache: "fp8" });
    expect(calibration).toMatchObject({ prompt: "PROMPT", tokens: 130 });
    const { arrays } = await written({ ...CALIBRATED, kvCache: "fp8", verify: "off" });
    const scales = [...arrays].filter(([name]) => isActivationScale(name));
    expect(calibration!.scales).toEqual(
      Object.fromEntries(scales.map(([name, array]) => [name, floatsOf(array)[0]])),
    );
  });

  it("is in the certificate, without a path of this machine", async () => {
    const { out } = await written({ ...CALIBRATED, calibrateRule: "mse", verify: "bytes" });
    const text = readFileSync(join(out, CERTIFICATE_FILE), "utf8");
    expect(text).not.toContain(work);
    expect(JSON.parse(text).conversion).toMatchObject({
      calibrate: { prompt: "PROMPT", tokens: 130, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) },
      calibrateRule: "mse",
    });
  });
});

it("a stopped run resumes to the same files", async () => {
  const options = { ...CALIBRATED, verify: "bytes", checkpointBytes: 1 } as const;
  const [out, stop] = [place(), new AbortController()];
  const watch: ConvertOptions["watch"] = (event) => {
    if (event.type === "phase" && event.phase === "verify") stop.abort();
  };
  const { code } = await errorOf(() => convert(TINY, out, { ...options, watch, signal: stop.signal }));
  expect(code).toBe("INTERRUPTED");
  await convert(TINY, out, { ...options, resume: true });
  expect(filesOf(out)).toEqual(filesOf((await written(options)).out));
});

it("a packed file keeps the scales on the way to a folder", async () => {
  const file = `${place()}.isologit`;
  await convert(TINY, file, { ...CALIBRATED, to: "packed", verify: "bytes" });
  const unpacked = await written({ ...QUICK, to: "hf", verify: "bytes" }, file);
  const direct = await written({ ...CALIBRATED, verify: "off" });
  expect(unpacked.arrays).toEqual(direct.arrays);
  expect(configOf(unpacked.out)).toEqual(configOf(direct.out));
});

it("adds scales to FP8 weights that are copied, and changes no code", async () => {
  const source = genuine("ct-tensor-dynamic");
  const options = {
    ...QUICK,
    to: "hf",
    calibrate: prompt,
    quantDialect: "modelopt",
    verify: "bytes",
  } as const;
  const { arrays, report } = await written(options, source);
  expect(report.verification?.verdict).toBe("same");
  const codes = [...(await weightsOf(source))].filter(([, { dtype }]) => dtype === "F8_E4M3");
  expect(codes).toHaveLength(14);
  for (const [name, { bytes }] of codes) {
    expect(arrays.get(name)!.bytes).toEqual(bytes);
    expect(arrays.has(name.replace(/weight$/, "input_scale"))).toBe(true);
  }
});

describe("is refused", () => {
  it.each<[string, ConvertOptions, string, string]>([
    ["without FP8", { dtype: "bf16", calibrate: prompt }, "USAGE", TINY],
    ["for E5M2", { dtype: "fp8-e5m2", calibrate: prompt }, "USAGE", TINY],
    ["a rule without `calibrate`", { dtype: "fp8-e4m3", calibrateRule: "mse" }, "USAGE", TINY],
    ["a cache without `calibrate`", { dtype: "fp8-e4m3", kvCache: "fp8" }, "USAGE", TINY],
    ["for copied weights without a dialect", { calibrate: prompt }, "USAGE", genuine("ct-tensor-dynamic")],
    [
      "for scales of blocks",
      { calibrate: prompt, quantDialect: "compressed-tensors" },
      "PLAN_IMPOSSIBLE",
      genuine("ct-block-128"),
    ],
    [
      "where the source has static scales",
      { calibrate: prompt, quantDialect: "fp8" },
      "PLAN_IMPOSSIBLE",
      genuine("ct-tensor-static"),
    ],
    ["without enough memory", { ...CALIBRATED, memoryBytes: 1 << 18 }, "PLAN_MEMORY", TINY],
    ["for an unknown recipe, before the pass", { ...CALIBRATED, recipe: "none" }, "RECIPE_INVALID", TINY],
  ])("%s", async (_, options, code, source) => {
    let passes = 0;
    const watch: ConvertOptions["watch"] = (event) => {
      if (event.type === "phase" && event.phase === "calibrate") passes++;
    };
    const error = await errorOf(() => plan(source, place(), { to: "hf", ...QUICK, ...options, watch }));
    expect(error.code).toBe(code);
    expect(passes).toBe(0);
  });
});
