/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native, Use } from "../../forward.ts";
import { attentionMixerUses, embeddingUses } from "../../parts/gguf/attention-native.ts";
import { productOf } from "../../parts/stages.ts";
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

const product = (name: string, to: string, count: (d: NemotronDims) => number): NemotronUse =>
  whole(name, (d) => productOf(to, d.mlpBias), count);

export const gguf: Native<NemotronDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: embeddingUses(),
    attention: [...norm("attn_norm"), ...attentionMixerUses<NemotronDims>(() => undefined)],
    mlp: [
      ...norm("ffn_norm"),
      product("ffn_up.weight", "up", (d) => d.ffn),
      product("ffn_down.weight", "out", (d) => d.hidden),
      whole("ffn_up.bias", "up.bias", (d) => d.ffn),
      whole("ffn_down.bias", "out.bias", (d) => d.hidden),
    ],
    head: [...norm("output_norm"), whole("output.weight", "logits", (d) => d.vocab)],
  },
};
