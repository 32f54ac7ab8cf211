/** How the Hugging Face dialect runs: which stored rows produce which stream. Written by hand, apart from the rules. */
import type { Native, OutputRows, Use } from "../../forward.ts";
import { attentionUses } from "../../parts/attention/hf-native.ts";
import { mambaUses } from "../../parts/mamba/hf-native.ts";
import { whole } from "../../parts/whole.ts";
import type { GraniteDims } from "../dims.ts";

const TABLE = "model.embed_tokens.weight";
const NORM = "input_layernorm.weight";

/** Rows of the gate, then rows of up. */
const halves = (prefix: string, width: number, from = 0): readonly OutputRows[] => [
  { to: `${prefix}gate`, at: 0, from, count: width },
  { to: `${prefix}up`, at: 0, from: from + width, count: width },
];

/** @param to the stream that the output projection produces */
const mlp = (to: string): readonly Use<GraniteDims>[] => [
  whole("post_attention_layernorm.weight", "gain", (d) => d.hidden),
  { name: "shared_mlp.input_linear.weight", outputs: (d) => halves("", d.ffn) },
  whole("shared_mlp.output_linear.weight", to, (d) => d.hidden),
];

export const hf: Native<GraniteDims> = {
  dialect: "hf",
  prefix: { main: "model.layers.{outer}." },
  uses: {
    embedding: [whole(TABLE, "vocabulary", (d) => d.vocab)],
    mamba: [whole(NORM, "gain", (d) => d.hidden), ...mambaUses<GraniteDims>("mamba.", "branch")],
    attention: attentionUses<GraniteDims>(NORM, "branch"),
    mlp: mlp("branch"),
    moe: [
      ...mlp("shared"),
      whole("block_sparse_moe.router.layer.weight", "route", (d) => d.experts),
      // the rows of one expert after the other
      {
        name: "block_sparse_moe.input_linear.weight",
        outputs: (d, { expert }) => halves("expert.", d.moeFfn, expert * 2 * d.moeFfn),
      },
      {
        name: "block_sparse_moe.output_linear.weight",
        outputs: (d, { expert }) => [{ to: "expert.down", at: 0, from: expert * d.hidden, count: d.hidden }],
      },
    ],
    head: [
      whole("model.norm.weight", "gain", (d) => d.hidden),
      // a tied model stores no head, or a copy of the token table
      { ...whole("lm_head.weight", "logits", (d) => d.vocab), also: [TABLE] },
    ],
  },
};
