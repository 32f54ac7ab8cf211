/** `check` of folders that real quantisers wrote: sound as they are, and faulty as reports describe them. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import type { Finding } from "../../src/core/finding.ts";
import { ENGINE_IDS, type EngineId } from "../../src/quantization/engines/engine.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { type Copy, copyOf, Editor, oneF32, written } from "../support/verify/planted.ts";

const DIALECTS = new URL("../../fixtures/fp8-dialects/", import.meta.url).pathname;
const work = workFolder();
let count = 0;
const fresh = () => join(work, String(count++));

const GENUINE = [
  ...["ct-block-128", "ct-channel-dynamic", "ct-mxfp8", "ct-nvfp4", "ct-tensor-dynamic", "ct-tensor-static"],
  ...["fp8-block-128", "fp8-block-8x32", "fp8-tensor-hf", "fp8-tensor-static"],
  ...["modelopt-fp8", "modelopt-mixed", "modelopt-mxfp8", "modelopt-nvfp4", "modelopt-pbwo", "modelopt-pcpt"],
] as const;
type Genuine = (typeof GENUINE)[number];
const copies = new Map<Genuine, Copy>();
for (const name of GENUINE) copies.set(name, await copyOf(DIALECTS + name));
const tiny = await copyOf(golden("tiny"));

/** Rules that these folders have for another reason: they have no code files. */
const ofQuantisation = (findings: readonly Finding[]) =>
  findings.filter(({ rule }) => /^(quantization|engine|activation|kv|scale)-/.test(rule));

/** The engines that read a genuine folder as it is meant. */
const READ_BY: Readonly<Record<Genuine, readonly EngineId[]>> = {
  "ct-block-128": ["vllm", "sglang", "trtllm"],
  "ct-channel-dynamic": ["vllm", "sglang", "trtllm", "transformers"],
  "ct-mxfp8": ["vllm", "sglang", "trtllm", "transformers"],
  "ct-nvfp4": ["vllm", "sglang", "trtllm", "transformers"],
  "ct-tensor-dynamic": ["vllm", "sglang", "trtllm", "transformers"],
  "ct-tensor-static": ["vllm", "sglang", "trtllm", "transformers"],
  "fp8-block-128": ["vllm", "sglang", "trtllm"],
  "fp8-block-8x32": ["vllm", "sglang", "trtllm", "transformers"],
  "fp8-tensor-hf": ["trtllm", "transformers"],
  "fp8-tensor-static": ["vllm", "sglang", "trtllm"],
  "modelopt-fp8": ["vllm", "trtllm"],
  "modelopt-mixed": ["vllm", "sglang", "trtllm"],
  "modelopt-mxfp8": ["vllm", "trtllm"],
  "modelopt-nvfp4": ["vllm", "trtllm"],
  "modelopt-pbwo": ["trtllm"],
  "modelopt-pcpt": ["vllm", "trtllm"],
};

describe("a genuine folder", () => {
  it.each(GENUINE)("%s is sound, for the engines that read it", async (name) => {
    const { ok, findings } = await check(DIALECTS + name);
    expect(ofQuantisation(findings).filter(({ severity }) => severity !== "note")).toEqual([]);
    expect(ok).toBe(true);
    const reading: EngineId[] = [];
    for (const id of ENGINE_IDS) if ((await check(DIALECTS + name, { for: [id] })).ok) reading.push(id);
    expect(reading).toEqual(READ_BY[name]);
  });
});

// biome-ignore lint/suspicious/noExplicitAny: keys of several dialects
type Config = any;

/** A genuine folder with another declaration in config.json, and with other tensors. */
function changed(
  name: Genuine,
  { config, plant }: { config?: (declared: Config) => Config; plant?: (editor: Editor) => void },
): Copy {
  const editor = new Editor(copies.get(name)!);
  if (config !== undefined) {
    const declared = structuredClone(editor.json("config.json").quantization_config) as Config;
    editor.config({ quantization_config: config(declared) ?? declared });
  }
  plant?.(editor);
  return editor.copy;
}

/** hf_quant_config.json with another declaration. */
function beside(copy: Copy, change: (quantization: Config) => void): Copy {
  const json = JSON.parse(Buffer.from(copy.files.get("hf_quant_config.json")!).toString());
  change(json.quantization);
  return {
    ...copy,
    files: new Map(copy.files).set("hf_quant_config.json", Buffer.from(JSON.stringify(json))),
  };
}

const asWritten = (kind: string) => readFileSync(`${DIALECTS}modelopt-fp8.as-written.${kind}.json`);
const ending = (suffix: string) => (editor: Editor) =>
  [...editor.copy.tensors.keys()].filter((name) => name.endsWith(suffix));
const dropAll = (suffix: string) => (editor: Editor) => {
  for (const name of ending(suffix)(editor)) editor.drop(name);
};
const K3 = "backbone.layers.3.mixer.k_proj";

interface Case {
  readonly name: string;
  readonly copy: () => Copy;
  readonly rule: string;
  readonly severity: Finding["severity"];
  readonly message: RegExp;
  /** engines for which the folder is an error; the others read it as they read the genuine folder */
  readonly fails: readonly EngineId[];
}

const CASES: readonly Case[] = [
  {
    name: "names with the ending that Model-Optimizer writes under Transformers 5",
    copy: () => {
      const copy = changed("modelopt-fp8", {
        config: () => JSON.parse(asWritten("quantization_config").toString()),
      });
      return {
        ...copy,
        files: new Map(copy.files).set("hf_quant_config.json", asWritten("hf_quant_config")),
      };
    },
    rule: "quantization-entry-unmatched",
    severity: "error",
    message: /8 of 8 entries of its list name no module: 8 of them have the ending `\.\\0backbone/,
    fails: ["vllm", "sglang", "trtllm", "transformers"],
  },
  {
    name: "short names under fp8",
    copy: () =>
      changed("fp8-tensor-static", {
        config: () => ({
          quant_method: "fp8",
          activation_scheme: "dynamic",
          modules_to_not_convert: ["q_proj", "k_proj", "v_proj", "o_proj", "lm_head"],
        }),
        plant: dropAll("input_scale"),
      }),
    rule: "quantization-contradiction",
    severity: "error",
    message: /^8 tensors: vLLM, TensorRT-LLM: it is BF16, .* vLLM compares whole names/,
    fails: ["vllm", "trtllm", "transformers"],
  },
  {
    name: "an entry that Transformers takes for the start of other names",
    copy: () =>
      changed("fp8-tensor-hf", {
        config: (declared) => {
          declared.modules_to_not_convert.push("backbone.layers.8.mixer.in");
        },
      }),
    rule: "quantization-contradiction",
    severity: "error",
    message: /^Transformers: it is FP8, but .* entry "backbone\.layers\.8\.mixer\.in"; Transformers tries/,
    fails: ["vllm", "sglang", "transformers"],
  },
  {
    name: "a list under a key that nobody reads",
    copy: () => {
      const copy = changed("modelopt-fp8", {
        config: ({ ignore, ...declared }) => ({ ...declared, exclude_modules: ignore }),
      });
      copy.files.delete("hf_quant_config.json");
      return copy;
    },
    rule: "quantization-list-key",
    severity: "error",
    message: /list exclude_modules has 8 entries, and no engine of modelopt reads this key/,
    fails: ["vllm", "sglang", "trtllm", "transformers"],
  },
  {
    name: "two files with two lists",
    copy: () =>
      beside(changed("modelopt-fp8", {}), (quantization) => {
        quantization.exclude_modules = ["lm_head"];
      }),
    rule: "quantization-files",
    severity: "warning",
    message: /list of modules left alone has 1 entries: "lm_head", and 8 entries/,
    fails: ["sglang", "trtllm", "transformers"],
  },
  {
    name: "two files with two algorithms",
    copy: () =>
      beside(changed("modelopt-fp8", {}), (quantization) => {
        quantization.quant_algo = "NVFP4";
      }),
    rule: "quantization-beside",
    severity: "warning",
    message: /by hf_quant_config.json, its quant_algo is "NVFP4".* these are FP8/,
    fails: ["sglang", "trtllm", "transformers"],
  },
  {
    name: "static activations without scales",
    copy: () => changed("modelopt-fp8", { plant: dropAll("input_scale") }),
    rule: "activation-scale-missing",
    severity: "error",
    message: /^14 tensors: vLLM, SGLang, TensorRT-LLM: .* no input_scale/,
    fails: ["vllm", "sglang", "trtllm", "transformers"],
  },
  {
    name: "scales of activations under dynamic activations",
    copy: () =>
      changed("ct-tensor-static", {
        config: () =>
          new Editor(copies.get("ct-tensor-dynamic")!).json("config.json").quantization_config as Config,
      }),
    rule: "activation-scale-undeclared",
    severity: "error",
    message: /declares no static activations/,
    fails: ["vllm", "sglang", "trtllm", "transformers"],
  },
  {
    name: "KV scales of channels",
    copy: () =>
      changed("modelopt-fp8", {
        plant: (editor) =>
          editor.add(
            `${K3}.k_scale`,
            "F32",
            [32],
            new Uint8Array(32 * 4).map((_, i) => (i % 4 === 3 ? 0x3c : 0)),
          ),
      }),
    rule: "kv-scale-shape",
    severity: "error",
    message: /\[32\] scales of a KV cache/,
    fails: ["vllm", "sglang", "trtllm", "transformers"],
  },
  {
    name: "a KV scale that is NaN",
    copy: () =>
      changed("modelopt-fp8", {
        plant: (editor) => editor.put(`${K3}.k_scale`, { bytes: oneF32(Number.NaN) }),
      }),
    rule: "scale-range",
    severity: "error",
    message: /the scale is NaN/,
    fails: ["vllm", "sglang", "trtllm", "transformers"],
  },
  {
    name: "an FP8 KV cache without scales",
    copy: () =>
      changed("modelopt-fp8", {
        plant: (editor) => {
          dropAll("k_scale")(editor);
          dropAll("v_scale")(editor);
        },
      }),
    rule: "kv-scale-missing",
    severity: "note",
    message: /engines take 1\.0/,
    fails: ["sglang", "transformers"],
  },
  {
    name: "KV scales that no file declares",
    copy: () =>
      beside(
        changed("modelopt-fp8", { config: ({ kv_cache_scheme: _, ...declared }) => declared }),
        (quantization) => {
          quantization.kv_cache_quant_algo = null;
        },
      ),
    rule: "kv-scale-undeclared",
    severity: "note",
    message: /^vLLM, SGLang, TensorRT-LLM: 4 scales of a KV cache/,
    fails: ["sglang", "transformers"],
  },
  {
    name: "an FP8 head under Linear",
    copy: () =>
      changed("ct-tensor-dynamic", {
        config: (declared) => {
          declared.ignore = declared.ignore.filter((name: string) => name !== "lm_head");
        },
        plant: quantise("lm_head"),
      }),
    rule: "engine-head",
    severity: "warning",
    message: /^vLLM does not quantise a head/,
    fails: ["vllm", "sglang", "trtllm"],
  },
  {
    name: "an FP8 head that a target names",
    copy: () =>
      changed("ct-tensor-dynamic", {
        config: (declared) => {
          declared.ignore = declared.ignore.filter((name: string) => name !== "lm_head");
          declared.config_groups.group_0.targets.push("lm_head");
        },
        plant: quantise("lm_head"),
      }),
    rule: "engine-head",
    severity: "note",
    message: /^vLLM does not quantise a head/,
    fails: ["vllm"],
  },
  {
    name: "an FP8 convolution",
    copy: () => changed("ct-tensor-dynamic", { plant: quantise("backbone.layers.0.mixer.conv1d") }),
    rule: "quantization-module",
    severity: "error",
    message: /no engine runs conv1d so/,
    fails: ["vllm", "sglang", "trtllm", "transformers"],
  },
  {
    name: "k in BF16 beside q and v in FP8",
    copy: () =>
      changed("ct-channel-dynamic", {
        config: (declared) => {
          declared.ignore.push("model.layers.3.mixer.k_proj");
        },
        plant: (editor) => {
          editor.put(`${K3}.weight`, tiny.tensors.get(`${K3}.weight`)!);
          editor.drop(`${K3}.weight_scale`);
        },
      }),
    rule: "engine-fused",
    severity: "warning",
    message: /k_proj of backbone.layers.3.mixer is BF16, beside 2 parts in FP8/,
    fails: ["vllm"],
  },
  {
    name: "a map that names a module that is not quantised",
    copy: () =>
      changed("modelopt-mixed", {
        config: (declared) => {
          declared.quantized_layers[K3] = { quant_algo: "FP8" };
        },
      }),
    rule: "quantization-contradiction",
    severity: "error",
    message: /^vLLM, SGLang: it is BF16/,
    fails: ["vllm", "sglang", "transformers"],
  },
  {
    name: "a map that says FP8 of NVFP4",
    copy: () =>
      changed("modelopt-mixed", {
        config: (declared) => {
          declared.quantized_layers["backbone.layers.1.mixer.up_proj"] = { quant_algo: "FP8" };
        },
      }),
    rule: "quantization-contradiction",
    severity: "error",
    message: /it is NVFP4, but the config says FP8/,
    fails: ["vllm", "sglang", "trtllm", "transformers"],
  },
  {
    name: "scales of rows that the config calls scales of tensors",
    copy: () =>
      changed("ct-channel-dynamic", {
        config: (declared) => {
          declared.config_groups.group_0.weights.strategy = "tensor";
        },
      }),
    rule: "quantization-contradiction",
    severity: "error",
    message: /one scale per channel, but the config says one per tensor/,
    fails: ["vllm", "sglang", "trtllm", "transformers"],
  },
];

function quantise(module: string) {
  return (editor: Editor) => {
    const { shape } = editor.get(`${module}.weight`);
    const size = shape.reduce((a, b) => a * b, 1);
    editor.put(`${module}.weight`, { dtype: "F8_E4M3", bytes: new Uint8Array(size).fill(0x40) });
    editor.add(`${module}.weight_scale`, "F32", [1], oneF32(0.01));
  };
}

describe("a faulty folder", () => {
  it.each(CASES)("$name", async ({ copy, rule, severity, message, fails }) => {
    const folder = written(copy(), fresh());
    const { findings } = await check(folder);
    const found = findings.filter((finding) => finding.rule === rule);
    expect(found.map(({ message }) => message).join("\n"), JSON.stringify(findings, null, 1)).toMatch(
      message,
    );
    expect(found.map((finding) => finding.severity)).toContain(severity);
    const failing: EngineId[] = [];
    for (const id of ENGINE_IDS) if (!(await check(folder, { for: [id] })).ok) failing.push(id);
    expect(failing).toEqual(fails);
  });
});

it("an engine that is not known is refused", async () => {
  const engines = ["llama"] as unknown as readonly EngineId[];
  await expect(check(`${DIALECTS}ct-tensor-dynamic`, { for: engines })).rejects.toMatchObject({
    code: "USAGE",
  });
});

describe("pairs of codes and scales that do not fit", () => {
  const IN = "backbone.layers.0.mixer.in_proj.weight";
  const errorsOf = async (copy: Copy, engines?: readonly EngineId[]) => {
    const { findings } = await check(written(copy, fresh()), engines && { for: engines });
    return findings
      .filter(({ severity }) => severity === "error")
      .map(({ rule, at, message }) => [rule, at.tensor, message]);
  };

  it("five scales of one in_proj are one fault of each", async () => {
    const copy = changed("ct-tensor-dynamic", {
      plant: (editor) => editor.put(`${IN}_scale`, { shape: [5], bytes: new Uint8Array(20).fill(0x3c) }),
    });
    expect(await errorsOf(copy)).toEqual([
      ["unsupported", `${IN}_scale`, expect.stringMatching(/\[5\] does not scale \[328, 64\]/)],
    ]);
  });

  it("two scales of one weight are one fault", async () => {
    const copy = changed("fp8-tensor-hf", {
      plant: (editor) => editor.add(`${IN}_scale`, "F32", [], oneF32(0.01)),
    });
    expect(await errorsOf(copy)).toEqual([
      [
        "scale-invalid",
        expect.stringContaining(`${IN}_scale`),
        expect.stringMatching(/already has the scale/),
      ],
    ]);
  });

  it("a scale of a BF16 head is one fault", async () => {
    const copy = changed("ct-tensor-dynamic", {
      plant: (editor) => editor.add("lm_head.weight_scale", "F32", [1], oneF32(0.01)),
    });
    expect(await errorsOf(copy)).toEqual([
      ["scale-invalid", "lm_head.weight_scale", expect.stringMatching(/lm_head\.weight is BF16/)],
    ]);
  });

  it("scales under names of other software are one fault", async () => {
    const { tensors, files } = copies.get("ct-tensor-static")!;
    const renamed = [...tensors].map(
      ([name, array]) => [name.replace(/(weight|input)_scale$/, "scale_$1"), array] as const,
    );
    expect(await errorsOf({ tensors: new Map(renamed), files })).toEqual([
      ["unsupported", expect.any(String), expect.stringMatching(/^28 scales are stored as scale_weight/)],
    ]);
  });

  it("codes of AMD are one fault", async () => {
    const { tensors, files } = copies.get("ct-tensor-dynamic")!;
    const relabelled = [...tensors].map(([name, array]) =>
      array.dtype === "F8_E4M3"
        ? ([name, { ...array, dtype: "F8_E4M3FNUZ" as const }] as const)
        : ([name, array] as const),
    );
    const copy = { tensors: new Map(relabelled), files };
    expect(await errorsOf(copy)).toEqual([]);
    expect(await errorsOf(copy, ["vllm"])).toEqual([
      ["quantization-fnuz", expect.any(String), expect.stringMatching(/14 weights are F8_E4M3FNUZ/)],
    ]);
  });

  it("stacked experts have one scale for each matrix", async () => {
    const moe = await copyOf(golden("moe"));
    const editor = new Editor(moe);
    const left: string[] = [];
    for (const [name, { dtype, shape }] of [...moe.tensors]) {
      const size = shape.reduce((a, b) => a * b, 1);
      const expert = /^(.*\.experts)\.(\d+)\.(\w+)\.weight$/.exec(name);
      if (expert === null) {
        if (/(_proj|gate|lm_head)\.weight$/.test(name) && dtype === "BF16")
          left.push(name.replace(/\.weight$/, ""));
        continue;
      }
      editor.drop(name);
      const count = [...moe.tensors.keys()].filter(
        (other) => other.startsWith(`${expert[1]}.`) && other.endsWith(`${expert[3]}.weight`),
      ).length;
      const stack = `${expert[1]}.${expert[3]}`;
      editor.add(stack, "F8_E4M3", [count, ...shape], new Uint8Array(count * size).fill(0x38));
      const scales = new Uint8Array(new Float32Array(count).fill(0.01).buffer);
      editor.add(`${stack}_scale_inv`, "F32", [count, 1, 1], scales);
    }
    const fp8 = { quant_method: "fp8", activation_scheme: "dynamic", weight_block_size: null };
    editor.config({ quantization_config: { ...fp8, modules_to_not_convert: left } });
    expect(await errorsOf(editor.copy)).toEqual([]);
  });
});

it("a NaN code is found by its element where weights are read", async () => {
  const name = "backbone.layers.4.mixer.up_proj.weight";
  const copy = changed("ct-tensor-dynamic", {
    plant: (editor) => {
      editor.bytes(name, (bytes) => {
        bytes[777] = 0x7f;
        bytes[900] = 0xff;
      });
    },
  });
  const folder = written(copy, fresh());
  expect((await check(folder)).ok).toBe(true);
  const { findings } = await check(folder, { read: true });
  expect(findings.filter(({ severity }) => severity === "error")).toMatchObject([
    {
      rule: "nan-code",
      at: { tensor: name },
      message: expect.stringMatching(/^element 777 .* 0x7f.*, and 1 more/),
    },
  ]);
  expect((await check(`${DIALECTS}ct-tensor-dynamic`, { read: true })).ok).toBe(true);
});

it("docs/checking.md names every rule", () => {
  const root = new URL("../../", import.meta.url).pathname;
  const folders = ["rules", "engines"].map((folder) => `${root}src/quantization/${folder}`);
  const code = folders
    .flatMap((folder) => readdirSync(folder).map((file) => readFileSync(join(folder, file), "utf8")))
    .join("\n");
  const rules = [...code.matchAll(/"((?:quantization|engine|activation|kv|scale)-[a-z-]+)"/g)].map(
    ([, rule]) => rule!,
  );
  expect(rules.length).toBeGreaterThan(20);
  const page = readFileSync(`${root}docs/checking.md`, "utf8");
  expect([...new Set(rules)].filter((rule) => !page.includes(`\`${rule}\``))).toEqual([]);
});

it("findings name their engines", async () => {
  const { findings } = await check(`${DIALECTS}fp8-tensor-hf`, { for: ["vllm", "sglang"] });
  const named = findings.filter(({ rule }) => rule === "engine-scale-name");
  expect(named.map(({ severity, engines }) => [severity, engines])).toEqual([
    ["error", ["vllm"]],
    ["error", ["sglang"]],
  ]);
});
