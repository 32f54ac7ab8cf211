/** Transformers 5.12, with compressed-tensors 0.17. Measured with these versions. */
import type { Engine, EngineLimit } from "./engine.ts";
import type { QuantizedFolder } from "./folder.ts";
import { quantisedModules, scaleNameLimits } from "./limits.ts";
import { equalExpressionOrClass, prefixOrEnding } from "./matching.ts";

export const transformers: Engine = {
  id: "transformers",
  name: "Transformers",
  files: ["config.json"],
  methods: {
    "compressed-tensors": {
      lists: ["ignore"],
      findEntry: equalExpressionOrClass,
      rule: "compares whole names and classes, and tries `re:` from the start (compressed-tensors)",
      head: true,
    },
    fp8: {
      lists: ["modules_to_not_convert", "ignored_layers"],
      findEntry: prefixOrEnding,
      rule: "tries an entry as an expression from the start of the name (`re.match`), and as its ending (should_convert_module; https://github.com/unslothai/unsloth/issues/6200)",
      head: false,
    },
  },
  refuses: {
    modelopt:
      "does not know the method modelopt: it drops the scales and takes codes for weights, and NVFP4 fails by its shape (measured with Transformers 5.12.1)",
  },
  limits: (folder) => [
    ...scaleNameLimits(folder, (name) => name.endsWith("_scale_inv"), {
      message:
        "reads one scale a tensor as weight_scale_inv: it takes the codes of a folder with weight_scale for weights, which vLLM and SGLang read (measured with Transformers 5.12.1)",
    }),
    ...blockLimits(folder),
    ...columnLimits(folder),
    ...dtypeLimits(folder),
    ...expertLimits(folder),
  ],
};

/** Blocks of the method `fp8`. */
function blockLimits(folder: QuantizedFolder): readonly EngineLimit[] {
  const { scheme, record } = folder;
  if (scheme.method !== "fp8") return [];
  const limit = (message: string, tensor: string): EngineLimit => ({
    rule: "engine-block",
    severity: "note",
    message: `${message} (measured with Transformers 5.12.1)`,
    tensor,
  });
  const modules = quantisedModules(folder);
  const whole = modules.find(({ extent }) => extent === "tensor");
  if (record.weight_block_size === undefined && whole !== undefined)
    return [limit("takes an absent weight_block_size for 128 x 128", whole.weight.name)];
  const ragged = modules.find(({ groups, weight }) =>
    groups.some(({ block }) => block?.some((size, axis) => weight.shape.at(axis - 2)! % size !== 0)),
  );
  if (ragged === undefined) return [];
  const { shape, name } = ragged.weight;
  return [limit(`needs blocks that divide the weight, and here is [${shape.join(", ")}]`, name)];
}

/** Blocks of compressed-tensors whose scales have one column look like one scale a row. */
function columnLimits(folder: QuantizedFolder): readonly EngineLimit[] {
  if (folder.scheme.method !== "compressed-tensors") return [];
  const found = quantisedModules(folder).find(({ extent, scale }) => {
    return extent === "block" && scale!.shape.at(-1) === 1 && scale!.shape[0]! > 1;
  });
  if (found === undefined) return [];
  const message = `takes scales [${found.scale!.shape.join(", ")}] of blocks for scales of rows, and fails (measured with compressed-tensors 0.17.1)`;
  return [{ rule: "engine-block", severity: "note", message, tensor: found.scale!.name }];
}

/** Decoded weights have the dtype of their scales. */
function dtypeLimits(folder: QuantizedFolder): readonly EngineLimit[] {
  if (folder.scheme.method !== "compressed-tensors") return [];
  const found = quantisedModules(folder).find(
    ({ encoding, scale }) => encoding === "FP8" && scale?.dtype === "F32",
  );
  if (found === undefined) return [];
  const message =
    "decodes FP8 to F32, the dtype of the scales: load with dtype float32, because a forward pass in BF16 fails (measured on CPU with Transformers 5.12.1)";
  return [{ rule: "engine-dtype", severity: "asked", loads: true, message, tensor: found.weight.name }];
}

/** Transformers stacks the experts of a layer. compressed-tensors does not decode stacked experts. */
function expertLimits(folder: QuantizedFolder): readonly EngineLimit[] {
  if (folder.scheme.method !== "compressed-tensors") return [];
  const found = quantisedModules(folder).find(({ isExpert }) => isExpert);
  if (found === undefined) return [];
  const message = "takes the codes of routed experts without their scales; vLLM reads them";
  return [{ rule: "engine-experts", severity: "note", message, tensor: found.weight.name }];
}
