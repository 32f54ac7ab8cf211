/** llama.cpp's names for the tensors of Llama, Mistral, Qwen2 and Qwen3. */
import type { Dialect, Rule } from "../../dialect.ts";
import { ROTARY_DROP, rotaryConstants } from "../../parts/gguf/rotary.ts";
import { asF32, inPairs } from "../../parts/gguf/rules.ts";
import { wholeParallelism } from "../../parts/whole-parallelism.ts";
import type { LlamaDims } from "../dims.ts";
import { ATTENTION } from "../settings.ts";
import { readSettings, refuseOtherFunctions, writeConfig } from "./config.ts";

type LlamaRule = Rule<LlamaDims>;

const once = (name: string, role: string): LlamaRule => ({ name, is: (of) => of(role) });

const on = (kinds: readonly string[], names: Readonly<Record<string, string>>): LlamaRule[] =>
  Object.entries(names).map(([name, role]) => ({ name, on: kinds, is: (of) => of(role) }));

/** Qwen's architectures turn halves of a head, as Hugging Face does; `llama` turns neighbours. */
const turnsHalves = (d: LlamaDims) => d.qkNorm === 1 || (d.qkvBias === 1 && d.outBias === 0);

/** Queries or keys, weight and bias. */
const turned = (name: string, role: string, heads: (d: LlamaDims) => number): LlamaRule[] => {
  const isOf = (part: string): LlamaRule["is"] => {
    const paired = inPairs<LlamaDims>(part, heads);
    return (of, d, at) => (turnsHalves(d) ? of(part) : paired(of, d, at));
  };
  return [
    { name: `${name}.weight`, on: ATTENTION, is: isOf(role) },
    asF32({ name: `${name}.bias`, on: ATTENTION, is: isOf(`${role}.bias`) }),
  ];
};

const rules: readonly LlamaRule[] = [
  once("token_embd.weight", "embed"),
  ...on(ATTENTION, { "attn_norm.weight": "norm" }).map(asF32),
  ...turned("attn_q", "attn.q", (d) => d.heads),
  ...turned("attn_k", "attn.k", (d) => d.kvHeads),
  ...on(ATTENTION, { "attn_v.weight": "attn.v", "attn_output.weight": "attn.o" }),
  ...on(ATTENTION, {
    "attn_v.bias": "attn.v.bias",
    "attn_output.bias": "attn.o.bias",
    "attn_q_norm.weight": "attn.q_norm",
    "attn_k_norm.weight": "attn.k_norm",
  }).map(asF32),
  ...on(["mlp"], { "ffn_norm.weight": "norm" }).map(asF32),
  ...on(["mlp"], {
    "ffn_gate.weight": "mlp.gate",
    "ffn_up.weight": "mlp.up",
    "ffn_down.weight": "mlp.down",
  }),
  ...on(["mlp"], {
    "ffn_gate.bias": "mlp.gate.bias",
    "ffn_up.bias": "mlp.up.bias",
    "ffn_down.bias": "mlp.down.bias",
  }).map(asF32),
  asF32(once("output_norm.weight", "final.norm")),
  once("output.weight", "head"),
];

export const gguf: Dialect<LlamaDims> = {
  id: "gguf",
  rules,
  stacks: { main: "blk.{outer}." },
  drop: ROTARY_DROP,
  constants: ({ settings }) => rotaryConstants(settings),
  objects: () => [],
  settings: readSettings,
  vocabulary: (config) => {
    const vocab = config[`${String(config["general.architecture"])}.vocab_size`];
    return typeof vocab === "number" ? vocab : undefined;
  },
  parallelism: (_, model) => wholeParallelism(model),
  cut(model) {
    refuseOtherFunctions(model.settings);
    return wholeParallelism(model);
  },
  config: writeConfig,
  keyRemarks: () => [],
};
