/** What config.json says of quantised weights, held to what is stored: by the cover rung, with the rules of `check`. */
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { convert } from "../../src/api/convert.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { type Copy, copyOf, Editor, oneF32, opened, written } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const BYTES: VerifyOptions = { verify: "bytes", threads: 1, memoryBytes: 64 * 1024 * 1024 };
const tiny = await copyOf(golden("tiny"));
await convert(golden("tiny"), `${work}/fp8`, { to: "hf", dtype: "fp8-e4m3", verify: "off" });
const fp8 = await copyOf(`${work}/fp8`);
const cast = [...fp8.tensors.keys()].filter((name) => fp8.tensors.has(`${name}_scale`));

type Config = Record<string, unknown>;
const said = new Editor(fp8).json("config.json").quantization_config as Config;
const group = (said.config_groups as Record<string, Config>).group_0!;
const grouped = (change: Config) => ({ ...said, config_groups: { group_0: { ...group, ...change } } });
const inputs = (change: Config) =>
  grouped({ input_activations: { ...(group.input_activations as Config), ...change } });
const weights = (change: Config) => grouped({ weights: { ...(group.weights as Config), ...change } });

function edited(quantization_config: unknown, scale?: number, copy = fp8): Copy {
  const editor = new Editor(copy);
  editor.config({ quantization_config });
  if (scale !== undefined) {
    for (const name of cast) editor.add(name.replace(/weight$/, "input_scale"), "F32", [1], oneF32(scale));
  }
  return editor.copy;
}

async function covered(a: Copy, b: Copy, options = BYTES) {
  const report = await verifyCheckpoints(await opened(a), await opened(b), options);
  const { settings } = metricsWith(report, "cover", "settings");
  const rules = report.findingDetails!.map(({ rule }) => rule);
  return { verdict: report.rungs[0]!.verdict, overall: report.verdict, settings: settings.join("; "), rules };
}

const CONTRA = "quantization-contradiction";
const FIELD = "quantization-field";

/** What is wrong, what is said of it, and the rule under which `check` says it. */
const FAULTS: readonly [string, () => Copy, RegExp, string][] = [
  [
    "removed",
    () => edited(undefined),
    /neither quantization_config nor hf_quant_config.json declares it/,
    "quantization-undeclared",
  ],
  ["put on plain weights", () => edited(said, undefined, tiny), /no weight is FP8/, "quantization-absent"],
  ["no object", () => edited("fp8"), /is not an object/, "quantization-invalid"],
  ...(["re:.*", "re:(?P<all>.*)", "re:model\\.layers", "*", "backbone"] as const).map(
    (pattern): (typeof FAULTS)[number] => [
      `all modules ignored by ${pattern}`,
      () => edited({ ...said, ignore: [pattern] }),
      /FP8, but the config lists its module as ignored/,
      "quantization-contradiction",
    ],
  ),
  [
    "none ignored",
    () => edited({ ...said, ignore: [] }),
    /does not list its module/,
    "quantization-contradiction",
  ],
  ["no group", () => edited({ ...said, config_groups: {} }), /names no group/, "quantization-method"],
  [
    "a group of nothing",
    () => edited(grouped({ targets: [] })),
    /no group .* names/,
    "quantization-contradiction",
  ],
  [
    "a group of others",
    () => edited(grouped({ targets: ["re:.*q_proj"] })),
    /no group/,
    "quantization-contradiction",
  ],
  ["no method", () => edited({ ...said, quant_method: undefined }), /no quant_method/, "quantization-method"],
  ["another method", () => edited({ ...said, quant_method: "gptq" }), /"gptq"/, "quantization-method"],
  ["integers", () => edited(weights({ type: "int" })), /8 bits of type int/, "quantization-contradiction"],
  ["four bits", () => edited(weights({ num_bits: 4 })), /says 4 bits/, "quantization-contradiction"],
  [
    "a scale a channel",
    () => edited(weights({ strategy: "channel" })),
    /one per channel/,
    "quantization-contradiction",
  ],
  [
    "blocks",
    () => edited({ quant_method: "fp8", weight_block_size: [128, 128], ignored_layers: said.ignore }),
    /one per block/,
    "quantization-contradiction",
  ],
  ["weights with a zero point", () => edited(weights({ symmetric: false })), /symmetric is false/, CONTRA],
  ["scales of each pass", () => edited(weights({ dynamic: true })), /dynamic is true/, CONTRA],
  ["activations in integers", () => edited(inputs({ type: "int" })), /type is "int"/, CONTRA],
  ["activations in four bits", () => edited(inputs({ num_bits: 4 })), /num_bits is 4/, CONTRA],
  [
    "outputs that are rounded",
    () => edited(grouped({ output_activations: {} })),
    /output_activations/,
    CONTRA,
  ],
  ["packed codes in a group", () => edited(grouped({ format: "pack-quantized" })), /pack-quantized/, CONTRA],
  ["packed codes", () => edited({ ...said, format: "pack-quantized" }), /pack-quantized/, FIELD],
  ["codes to come", () => edited({ ...said, quantization_status: "initialized" }), /initialized/, FIELD],
  ["sparse weights", () => edited({ ...said, sparsity_config: { format: "sparse-24" } }), /sparse-24/, FIELD],
  [
    "rotated weights",
    () => edited({ ...said, transform_config: { config_groups: { u: { type: "hadamard" } } } }),
    /hadamard/,
    FIELD,
  ],
  [
    "scales under another method's name",
    () => {
      const tensors = [...fp8.tensors].map(
        ([name, array]) => [name.replace(/weight_scale$/, "weight_scale_inv"), array] as const,
      );
      return { ...fp8, tensors: new Map(tensors) };
    },
    /weight_scale_inv, which engines of compressed-tensors do not read/,
    CONTRA,
  ],
  ["every class ignored", () => edited({ ...said, ignore: ["Linear"] }), /as ignored/, CONTRA],
  [
    "two groups that are unlike",
    () =>
      edited({
        ...said,
        config_groups: { a: group, b: { ...group, weights: { num_bits: 4, type: "int" } } },
      }),
    /two groups/,
    CONTRA,
  ],
  [
    "modelopt, no algorithm",
    () => edited({ ...said, quant_method: "modelopt" }),
    /no quant_algo/,
    "quantization-method",
  ],
  [
    "modelopt in four bits",
    () => edited({ ...said, quant_method: "modelopt", quant_algo: "NVFP4" }),
    /quant_algo is "NVFP4"/,
    "quantization-method",
  ],
  [
    "static, no scale",
    () => edited(inputs({ dynamic: false })),
    /no input_scale/,
    "activation-scale-missing",
  ],
  [
    "modelopt, no scale",
    () => edited({ quant_method: "modelopt", quant_algo: "FP8", ignore: said.ignore }),
    /no input_scale/,
    "activation-scale-missing",
  ],
  ["scales undeclared", () => edited(said, 0.01), /declares no static/, "activation-scale-undeclared"],
  [
    "scales of 1e-30",
    () => edited(inputs({ dynamic: false }), 1e-30),
    /1e-30 is unusual|1\.0+\d*e-30/,
    "scale-range",
  ],
  ["scales of 1e9", () => edited(inputs({ dynamic: false }), 1e9), /1000000000 is unusual/, "scale-range"],
  ["scales that are NaN", () => edited(inputs({ dynamic: false }), NaN), /is NaN/, "scale-range"],
];

describe("a quantization_config that says other than what is stored is different, and an error of check", () => {
  it.each(FAULTS)("%s", async (name, plant, text, rule) => {
    const copy = plant();
    const { verdict, settings } = await covered(tiny, copy);
    expect(settings).toMatch(text);
    expect(verdict).toBe("different");
    const { ok, findings } = await check(written(copy, `${work}/${name.replace(/\W+/g, "-")}`));
    expect(ok).toBe(false);
    expect(findings).toContainEqual(expect.objectContaining({ rule, severity: "error" }));
  });

  it("what both sides have in common came with the source: told, and no difference", async () => {
    const undeclared = edited(undefined);
    expect(await covered(undeclared, undeclared)).toMatchObject({
      overall: "same",
      settings: "",
      rules: expect.arrayContaining(["quantization-undeclared"]),
    });
    const stale = edited(said, undefined, tiny);
    expect(await covered(stale, stale)).toMatchObject({ overall: "same", rules: ["quantization-absent"] });
    expect((await covered(undeclared, fp8)).verdict).toBe("same");
  });

  it("ModelOpt's own file declares where config.json does not, and is told where both do", async () => {
    const beside = (copy: Copy, quantization: Config): Copy => {
      const text = JSON.stringify({ quantization });
      return { ...copy, files: new Map(copy.files).set("hf_quant_config.json", Buffer.from(text)) };
    };
    const right = { quant_algo: "FP8", exclude_modules: said.ignore };
    const alone = edited(undefined, 0.0123);
    expect(await covered(tiny, beside(alone, right))).toMatchObject({ verdict: "same", settings: "" });
    const wrong = { ...right, exclude_modules: ["*"] };
    expect((await covered(tiny, beside(alone, wrong))).settings).toMatch(/as ignored/);
    expect(await covered(tiny, beside(fp8, { ...right, quant_algo: "NVFP4" }))).toMatchObject({
      verdict: "same",
      rules: ["quantization-beside"],
    });
  });

  it("a cache of keys and values in another type is told", async () => {
    const cached = edited({ ...said, kv_cache_scheme: { num_bits: 8, type: "float", dynamic: false } });
    expect(await covered(tiny, cached)).toMatchObject({ verdict: "same", rules: ["kv-cache-type"] });
    expect((await covered(cached, cached)).rules).toEqual([]);
  });

  it("a key of compressed-tensors that is not known is told", async () => {
    const { verdict, rules } = await covered(tiny, edited(weights({ zero_mean: true })));
    expect({ verdict, rules }).toEqual({ verdict: "same", rules: ["quantization-key-unknown"] });
  });

  it("an expression that cannot be tried leaves it unproven", async () => {
    for (const pattern of ["re:(a+)+$", "re:(?<=a++)b"]) {
      const slow = edited({ ...said, ignore: [...(said.ignore as string[]), pattern] });
      const { verdict } = await covered(tiny, slow);
      expect(verdict, pattern).toBe(pattern === "re:(a+)+$" ? "same" : "unproven");
    }
  });
});

describe("honest configs of other tools stay right", () => {
  const ignored_layers = said.ignore;
  it.each([
    ["fp8, dynamic", { quant_method: "fp8", activation_scheme: "dynamic", ignored_layers }],
    [
      "fp8 of Transformers",
      { quant_method: "fp8", weight_block_size: null, modules_to_not_convert: ignored_layers },
    ],
    ["a group by names", grouped({ targets: cast.map((name) => name.replace(/\.weight$/, "")) })],
    [
      "a group by an expression",
      { ...grouped({ targets: ["re:.*\\.mixer\\.(in|out|up|down)_proj$"] }), ignore: [] },
    ],
    ["weights alone", grouped({ input_activations: null })],
    [
      "another name for codes beside scales",
      { ...grouped({ format: "mxfp8-quantized" }), format: "mxfp8-quantized" },
    ],
  ])("%s", async (name, config) => {
    const keep = name.includes("expression") ? edited({ ...config, ignore: said.ignore }) : edited(config);
    expect(await covered(tiny, keep)).toMatchObject({ verdict: "same", settings: "" });
  });

  it("static activations with their scales, of ModelOpt or compressed-tensors", async () => {
    const modelopt = { quant_method: "modelopt", quant_algo: "FP8", ignore: said.ignore };
    for (const config of [inputs({ dynamic: false, strategy: "tensor" }), modelopt]) {
      expect(await covered(tiny, edited(config, 0.0123))).toMatchObject({ verdict: "same", settings: "" });
    }
  });
});

describe("the type that config.json names", () => {
  const typed = (torch_dtype: string, copy: Copy) => {
    const editor = new Editor(copy);
    editor.config({ torch_dtype });
    return editor.copy;
  };

  it.each([
    ["a recast", fp8],
    ["a copy", tiny],
  ])("is told where it is not that of the weights: %s", async (_, copy) => {
    const { verdict, rules } = await covered(tiny, typed("float16", copy));
    expect(verdict).toBe("same");
    expect(rules).toContain("dtype-contradiction");
    expect((await covered(tiny, typed("float16", copy), { ...BYTES, strict: true })).verdict).toBe(
      "different",
    );
    expect((await covered(tiny, typed("bfloat16", copy))).rules).not.toContain("dtype-contradiction");
  });
});
