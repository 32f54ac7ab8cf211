/** Mixtures of experts of the Mixtral kind in Megatron's GPTModel. */
import type { ConfigInput } from "../dialect.ts";
import { type GptFamily, gptDialects } from "../parts/gpt/dialect.ts";
import { notInMegatron, unsupportedRecordError } from "../parts/gpt/errors.ts";
import type { GptModel } from "../parts/gpt/read.ts";
import { gptWidths } from "../parts/gpt/write.ts";
import type { Settings } from "../structure.ts";
import type { MixtralDims } from "./dims.ts";
import { ATTENTION } from "./settings.ts";

const family: GptFamily = {
  ...{ attention: ATTENTION, layerNorm: false, gated: true },
  parse(model) {
    if (model.qkvBias || model.linearBias)
      throw unsupportedRecordError(
        "add_qkv_bias or add_bias_linear is true: no class of Transformers has such experts",
      );
    const { moe, window, qkNorm, tied, rotary, maxPositions, hidden, vocab, eps, heads, kvHeads, headDim } =
      model;
    const { layers, experts, topK, ffn: moeFfn, preSoftmax } = moe!; // the family claims only such records
    const attention = window === undefined ? "*" : "s";
    const settings: Settings = {
      pattern: layers.map((isSparse) => attention + (isSparse ? "E" : "-")).join(""),
      ...{ hidden, vocab, eps, heads, kvHeads, headDim, attentionBias: false, qkNorm, tied },
      ...(window !== undefined && { window }),
      ...(layers.includes(false) && { ffn: model.ffn }),
      ...(layers.includes(true) && { experts, topK, moeFfn, routeNormalise: !preSoftmax }),
      ...rotary,
    };
    return { settings, passthrough: maxPositions === undefined ? {} : { maxPositions } };
  },
  describe({ settings, passthrough }: ConfigInput): GptModel {
    const of = (name: string) => Number(settings[name]);
    if (settings.attentionBias === true)
      throw notInMegatron("attention has biases and the experts have none: a record has one key for both");
    if (settings.experts === undefined) throw notInMegatron("none of its layers has experts");
    return {
      ...gptWidths(settings, passthrough),
      ffn: Number(settings.ffn ?? settings.moeFfn),
      window: settings.window === undefined ? undefined : of("window"),
      ...{
        qkvBias: false,
        linearBias: false,
        qkNorm: settings.qkNorm === true,
        tied: settings.tied === true,
      },
      ...{ norm: "RMSNorm", activation: "swiglu" },
      moe: {
        ...{ experts: of("experts"), topK: of("topK"), ffn: of("moeFfn") },
        preSoftmax: settings.routeNormalise !== true,
        layers: Array.from(String(settings.pattern).matchAll(/.(.)/g), ([, letter]) => letter === "E"),
      },
    };
  },
  nemoClass: ({ settings }) =>
    `nemo.collections.llm.gpt.model.${settings.qkNorm === true ? "qwen3.Qwen3MoEConfig" : "mixtral.MixtralConfig8x7B"}`,
};

export const megatronDialects = gptDialects<MixtralDims>(family);
