/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native, Use } from "../../forward.ts";
import { attentionMixerUses, embeddingUses } from "../../parts/gguf/attention-native.ts";
import { mlpUses } from "../../parts/gguf/mlp-native.ts";
import { whole } from "../../parts/whole.ts";
import type { NemotronDims } from "../dims.ts";

type NemotronUse = Use<NemotronDims>;

/** A norm: its gain is stored, and the parameter is the gain less 1. */
const norm = (name: string): readonly NemotronUse[] => [
  {
    name: `${name}.weight`,
    outputs: ({ hidden }) => [{ to: "gain", at: 0, from: 0, count: hidden, plus: 1 }],
  },
  whole(`${name}.bias`, "shift", (d) => d.hidden),
];

export const gguf: Native<NemotronDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    attention: [...norm("attn_norm"), ...attentionMixerUses<NemotronDims>(() => undefined)],
    mlp: [...norm("ffn_norm"), ...mlpUses<NemotronDims>()],
    head: [...norm("output_norm"), whole("output.weight", "logits", (d) => d.vocab)],
  },
};
