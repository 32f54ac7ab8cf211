/** Dense models of the Llama kind in Megatron's GPTModel. */
import type { ConfigInput } from "../dialect.ts";
import { type GptFamily, gptDialects } from "../parts/gpt/dialect.ts";
import { notInMegatron } from "../parts/gpt/errors.ts";
import type { GptModel } from "../parts/gpt/read.ts";
import { gptWidths } from "../parts/gpt/write.ts";
import type { Settings } from "../structure.ts";
import type { LlamaDims } from "./dims.ts";
import { isModelType, type ModelType } from "./hf/keys.ts";
import { ATTENTION, patternOf } from "./settings.ts";

/** NeMo 2's classes whose importers make models of a type. */
const CLASSES: Readonly<Record<ModelType, string>> = {
  llama: "llama.LlamaConfig",
  mistral: "mistral.MistralConfig7B",
  qwen2: "qwen2.Qwen2Config",
  qwen3: "qwen3.Qwen3Config",
};

const family: GptFamily = {
  ...{ attention: ATTENTION, layerNorm: false, gated: true },
  parse(model, config) {
    const { layers, window, qkvBias, linearBias, qkNorm, rotary, maxPositions, ...widths } = model;
    const { hidden, vocab, eps, heads, kvHeads, headDim, ffn, tied } = widths;
    const settings: Settings = {
      pattern: patternOf(Array.from({ length: layers }, () => window !== undefined)),
      ...{ hidden, vocab, eps, heads, kvHeads, headDim, ffn },
      ...{ qkvBias, outBias: linearBias, mlpBias: linearBias, qkNorm, tied },
      ...(window !== undefined && { window }),
      ...rotary,
    };
    const named = String(config._target_ ?? "").toLowerCase();
    const type = Object.keys(CLASSES).find((name) => named.includes(name));
    return {
      settings,
      passthrough: {
        ...(maxPositions !== undefined && { maxPositions }),
        ...(type !== undefined && { modelType: type }),
      },
    };
  },
  describe({ settings, passthrough }: ConfigInput): GptModel {
    const pattern = String(settings.pattern);
    if (!/^((\*-)+|(s-)+)$/.test(pattern))
      throw notInMegatron("only some of its layers have a window, and a record has one window for all");
    if (settings.outBias !== settings.mlpBias)
      throw notInMegatron(
        "attention's output has a bias and the MLPs have none: a record has one key for both",
      );
    if (settings.outBias === true && settings.qkvBias !== true)
      throw notInMegatron("queries, keys and values have no bias where all other projections have one");
    const window = settings.window === undefined ? undefined : Number(settings.window);
    return {
      ...gptWidths(settings, passthrough),
      window,
      qkvBias: settings.qkvBias === true,
      linearBias: settings.mlpBias === true,
      qkNorm: settings.qkNorm === true,
      tied: settings.tied === true,
      ...{ norm: "RMSNorm", activation: "swiglu", moe: undefined },
    };
  },
  nemoClass({ settings, passthrough }) {
    const type = isModelType(passthrough.modelType) ? passthrough.modelType : "llama";
    const name =
      type === "llama" && settings.ropeScaling === "llama3" ? "llama.Llama31Config" : CLASSES[type];
    return `nemo.collections.llm.gpt.model.${name}`;
  },
};

export const megatronDialects = gptDialects<LlamaDims>(family);
