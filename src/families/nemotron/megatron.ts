/** Nemotron models in Megatron's GPTModel. */
import type { ConfigInput } from "../dialect.ts";
import { type GptFamily, gptDialects } from "../parts/gpt/dialect.ts";
import { notInMegatron, unsupportedRecordError } from "../parts/gpt/errors.ts";
import type { GptModel } from "../parts/gpt/read.ts";
import { gptWidths } from "../parts/gpt/write.ts";
import type { Settings } from "../structure.ts";
import type { NemotronDims } from "./dims.ts";

const family: GptFamily = {
  ...{ attention: ["attention"], layerNorm: true, gated: false },
  parse(model) {
    if (model.window !== undefined || model.qkNorm || model.tied || model.qkvBias !== model.linearBias)
      throw unsupportedRecordError(
        "it has a window, norms of queries and keys, a tied head, or biases of its own",
      );
    const { layers, linearBias, rotary, maxPositions, hidden, vocab, eps, heads, kvHeads, headDim, ffn } =
      model;
    const settings: Settings = {
      pattern: "*-".repeat(layers),
      ...{ hidden, vocab, eps, heads, kvHeads, headDim, ffn },
      ...{ attentionBias: linearBias, mlpBias: linearBias },
      ...rotary,
    };
    return { settings, passthrough: maxPositions === undefined ? {} : { maxPositions } };
  },
  describe({ settings, passthrough }: ConfigInput): GptModel {
    if (settings.attentionBias !== settings.mlpBias)
      throw notInMegatron(
        "attention has biases and the MLPs have none, or the other way: a record has one key for both",
      );
    return {
      ...gptWidths(settings, passthrough),
      window: undefined,
      qkvBias: settings.attentionBias === true,
      linearBias: settings.mlpBias === true,
      ...{ qkNorm: false, tied: false },
      ...{ norm: "LayerNorm1p", activation: "squared-relu", moe: undefined },
    };
  },
  nemoClass: () => "nemo.collections.llm.gpt.model.nemotron.NemotronConfig",
};

export const megatronDialects = gptDialects<NemotronDims>(family);
