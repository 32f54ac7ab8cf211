/** How a GGUF runs: which stored rows produce which stream. Written by hand, apart from the rules in `dialect.ts`. */
import type { Native, Use } from "../../forward.ts";
import { productOf } from "../../parts/stages.ts";
import { whole } from "../../parts/whole.ts";
import type { LlamaDims } from "../dims.ts";

const TABLE = "token_embd.weight";

/** llama.cpp's architecture `llama` has the rows of a head in pairs; qwen2 (biases without one in the output) and qwen3 do not. */
const pairsIn = (d: LlamaDims): number | undefined =>
  d.qkNorm === 1 || (d.qkvBias === 1 && d.outBias === 0) ? undefined : d.headDim;

const product = (
  name: string,
  to: string,
  bias: (d: LlamaDims) => number,
  count: (d: LlamaDims) => number,
): Use<LlamaDims> => whole(name, (d) => productOf(to, bias(d)), count);

const attention: readonly Use<LlamaDims>[] = [
  whole("attn_norm.weight", "gain", (d) => d.hidden),
  {
    ...product(
      "attn_q.weight",
      "q",
      (d) => d.qkvBias,
      (d) => d.q,
    ),
    pairsIn,
  },
  {
    ...product(
      "attn_k.weight",
      "k",
      (d) => d.qkvBias,
      (d) => d.kv,
    ),
    pairsIn,
  },
  product(
    "attn_v.weight",
    "v",
    (d) => d.qkvBias,
    (d) => d.kv,
  ),
  { ...whole<LlamaDims>("attn_q.bias", "q.bias", (d) => d.q), pairsIn },
  { ...whole<LlamaDims>("attn_k.bias", "k.bias", (d) => d.kv), pairsIn },
  whole("attn_v.bias", "v.bias", (d) => d.kv),
  whole("attn_q_norm.weight", "q.gain", (d) => d.headDim),
  whole("attn_k_norm.weight", "k.gain", (d) => d.headDim),
  product(
    "attn_output.weight",
    "out",
    (d) => d.outBias,
    (d) => d.hidden,
  ),
  whole("attn_output.bias", "out.bias", (d) => d.hidden),
];

export const gguf: Native<LlamaDims> = {
  dialect: "gguf",
  prefix: { main: "blk.{outer}." },
  uses: {
    embedding: [whole(TABLE, "vocabulary", (d) => d.vocab)],
    attention,
    sliding_attention: attention,
    mlp: [
      whole("ffn_norm.weight", "gain", (d) => d.hidden),
      product(
        "ffn_gate.weight",
        "gate",
        (d) => d.mlpBias,
        (d) => d.ffn,
      ),
      product(
        "ffn_up.weight",
        "up",
        (d) => d.mlpBias,
        (d) => d.ffn,
      ),
      product(
        "ffn_down.weight",
        "out",
        (d) => d.mlpBias,
        (d) => d.hidden,
      ),
      whole("ffn_gate.bias", "gate.bias", (d) => d.ffn),
      whole("ffn_up.bias", "up.bias", (d) => d.ffn),
      whole("ffn_down.bias", "out.bias", (d) => d.hidden),
    ],
    head: [
      whole("output_norm.weight", "gain", (d) => d.hidden),
      // a tied model stores no head
      { ...whole("output.weight", "logits", (d) => d.vocab), also: [TABLE] },
    ],
  },
};
