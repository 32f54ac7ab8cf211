/** Every key of config.json that an engine reads: as Transformers 5 reads it, or named. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Attack, attacks, verify } from "./attack.ts";
import { compared, copied, type Pairing, pair, recastPair } from "./changes.ts";

type Keys = Readonly<Record<string, unknown>>;

/** B's config has these keys, A's those. */
const keys = (b: Keys, { a = {}, golden = "tiny" }: { a?: Keys; golden?: string } = {}) => {
  const pairing: Pairing = { golden, a: (one) => one.config(a), b: (one) => one.config(b) };
  return compared(pairing);
};

const rows: readonly Attack[] = [
  {
    name: "cfg-mamba-conv-bias-false",
    what: "mamba_conv_bias is false: Transformers 5 reads it over use_conv_bias",
    right: "red",
    run: keys({ mamba_conv_bias: false }),
  },
  {
    name: "cfg-alias-n-groups",
    what: "mamba_n_groups is 4 beside n_groups 2: Transformers 5 takes the first",
    right: "red",
    run: keys({ mamba_n_groups: 4 }),
  },
  {
    name: "cfg-layer-types",
    what: "layer_types contradict the pattern: Transformers 5 takes the list",
    right: "red",
    run: keys({
      layer_types: ["mlp", "mamba", "mamba", "attention", "mlp", "mamba", "attention", "mlp", "mamba"],
    }),
  },
  {
    name: "cfg-eps-spelt-otherwise",
    what: "epsilon 1e-3 stands only in rms_norm_eps, which Transformers does not read",
    right: "red",
    run: keys(
      { layer_norm_epsilon: undefined, rms_norm_eps: 1e-3 },
      { a: { layer_norm_epsilon: 1e-3, rms_norm_eps: 1e-3 } },
    ),
  },
  {
    name: "cfg-eps-aliases-disagree",
    what: "rms_norm_eps is 1e-2 beside layer_norm_epsilon 1e-5",
    right: "red",
    run: keys({ rms_norm_eps: 1e-2 }),
  },
  {
    name: "cfg-norm-topk-null",
    what: "norm_topk_prob is null where A says true",
    right: "told",
    tells: /norm_topk_prob/,
    run: keys({ norm_topk_prob: null }, { golden: "moe" }),
  },
  {
    name: "cfg-shared-experts",
    what: "n_shared_experts is 2 where A has 1",
    right: "told",
    tells: /n_shared_experts/,
    run: keys({ n_shared_experts: 2 }, { golden: "moe" }),
  },
  {
    name: "cfg-more-experts-a-token",
    what: "num_experts_per_tok is 4 where A has 3: no weight has another shape",
    right: "red",
    run: keys({ num_experts_per_tok: 4 }, { golden: "moe" }),
  },
  {
    name: "cfg-fewer-experts-a-token",
    what: "num_experts_per_tok is 2 where A has 3",
    right: "red",
    run: keys({ num_experts_per_tok: 2 }, { golden: "moe" }),
  },
  {
    name: "cfg-sliding-window",
    what: "sliding_window is 4 where A has null",
    right: "told",
    tells: /sliding_window/,
    run: keys({ sliding_window: 4 }),
  },
  {
    name: "cfg-rope",
    what: "keys of rotary embeddings appear",
    right: "told",
    tells: /rope_theta|partial_rotary_factor/,
    run: keys({ rope_theta: 10000, position_embedding_type: "rope", partial_rotary_factor: 1 }),
  },
  {
    name: "cfg-eos",
    what: "eos_token_id and bos_token_id differ",
    right: "told",
    tells: /eos_token_id/,
    run: keys({ eos_token_id: 7, bos_token_id: 9 }),
  },
  {
    name: "cfg-max-position",
    what: "max_position_embeddings is 16",
    right: "told",
    tells: /max_position_embeddings/,
    run: keys({ max_position_embeddings: 16 }),
  },
  {
    name: "cfg-architectures",
    what: "architectures and auto_map name another class",
    right: "told",
    tells: /architectures|auto_map/,
    run: keys({ architectures: ["LlamaForCausalLM"], auto_map: { AutoModelForCausalLM: "evil.Evil" } }),
  },
  {
    name: "cfg-transformers-weights",
    what: "transformers_weights names a file with another model, which Transformers 5 loads",
    right: "red",
    async run(at) {
      const [a, b] = await pair(at, {
        b: (one) => one.config({ transformers_weights: "other.safetensors" }),
      });
      const other = await copied("tiny", join(at, "other"), (one) =>
        one.values("lm_head.weight", (x) => x * 1.5),
      );
      writeFileSync(join(b, "other.safetensors"), readFileSync(join(other, "model.safetensors")));
      return await verify(a, b);
    },
  },
  {
    name: "cfg-duplicate-key",
    what: "layer_norm_epsilon is written twice, 1e-2 last",
    right: "red",
    async run(at) {
      const [a, b] = await pair(at, {});
      const path = join(b, "config.json");
      const text = readFileSync(path, "utf8").trimEnd().replace(/\}$/, ', "layer_norm_epsilon": 0.01}');
      writeFileSync(path, text);
      return await verify(a, b);
    },
  },
  {
    name: "cfg-residual-fp32",
    what: "residual_in_fp32 is true",
    right: "told",
    tells: /residual_in_fp32/,
    run: keys({ residual_in_fp32: true }),
  },
  {
    name: "cfg-dtype-plain",
    what: "torch_dtype is float16, and nothing was recast",
    right: "told",
    tells: /torch_dtype/,
    run: keys({ torch_dtype: "float16" }),
  },
  {
    name: "cfg-dtype-recast",
    what: "torch_dtype of an FP8 recast is float16: an engine computes in F16",
    right: "told",
    tells: /it says float16/,
    async run(at) {
      return await verify(...(await recastPair(at, (one) => one.config({ torch_dtype: "float16" }))));
    },
  },
];

attacks("settings that engines read", rows);
