/** Faults that conversions of dense and MoE models make, for each golden of a family beside Nemotron-H. */
import { expect } from "vitest";
import { familyGolden } from "../goldens.ts";
import { type Copy, copyOf, type Editor } from "./planted.ts";

export const FAMILY_GOLDENS = [
  "llama",
  "mistral",
  "qwen2",
  "qwen3",
  "nemotron",
  "mixtral",
  "qwen3_moe",
] as const;
/** Those whose faults the usual run plants: two dense models that are unlike, and one of experts. The long tests plant all. */
export const USUAL_GOLDENS = ["llama", "nemotron", "qwen3_moe"] as const;
export type FamilyGolden = (typeof FAMILY_GOLDENS)[number];

/** A fault in a block; the layers of block i are 2i, attention, and 2i + 1, MLP or experts. */
interface BlockFault {
  readonly layer: number;
  readonly plant: (e: Editor) => void;
}

const block = (index: number, part: string) => `model.layers.${index}.${part}.weight`;
const [Q, K, V, O] = ["q", "k", "v", "o"].map((part) => `self_attn.${part}_proj`) as [
  string,
  string,
  string,
  string,
];

/** Two tensors with their scales, if they have scales. */
function exchange(e: Editor, a: string, b: string): void {
  e.swap(a, b);
  if (e.copy.tensors.has(`${a}_scale`)) e.swap(`${a}_scale`, `${b}_scale`);
}

/** All tensors whose names begin with a, and those that begin with b. */
function exchangeModules(e: Editor, a: string, b: string): void {
  const names = [...e.copy.tensors.keys()].filter((name) => name.startsWith(a));
  expect(names.length).toBeGreaterThan(0);
  for (const name of names) e.swap(name, name.replace(a, b));
}

/** The first rows of a taken for those of b, which has no more rows. */
function exchangeRows(e: Editor, a: string, b: string): void {
  const [left, right] = [e.get(a).bytes, e.get(b).bytes];
  e.bytes(a, (bytes) => bytes.set(right));
  e.bytes(b, (bytes) => bytes.set(left.subarray(0, right.byteLength)));
}

/** Heads of a golden: elements of each. */
const HEAD: Readonly<Record<FamilyGolden, number>> = {
  ...{ llama: 32, mistral: 24, qwen2: 16, qwen3: 24, nemotron: 24, mixtral: 16, qwen3_moe: 24 },
};

/** Faults that every model with attention can have. */
const inAttention = (head: number): Readonly<Record<string, BlockFault>> => ({
  "k and v exchanged": { layer: 2, plant: (e) => exchange(e, block(1, K), block(1, V)) },
  "rows of q and k exchanged": { layer: 0, plant: (e) => exchangeRows(e, block(0, Q), block(0, K)) },
  "rows of q and v exchanged": { layer: 4, plant: (e) => exchangeRows(e, block(2, Q), block(2, V)) },
  "heads of k exchanged between groups": { layer: 2, plant: (e) => e.swapRows(block(1, K), 0, head, head) },
  "heads of v exchanged between groups": { layer: 4, plant: (e) => e.swapRows(block(2, V), 0, head, head) },
  "query heads dealt to the other group": {
    layer: 0,
    plant: (e) => e.swapRows(block(0, Q), head, 2 * head, head),
  },
  "pairs of rotation interleaved": {
    layer: 2,
    plant: (e) =>
      e.rows(block(1, Q), (r) => r - (r % head) + ((r % head) % 2) * (head / 2) + ((r % head) >> 1)),
  },
  "columns of o by the other group": {
    layer: 4,
    plant: (e) => e.columns(block(2, O), (c, n) => (c + n / 2) % n),
  },
  "a norm's gain of another layer": {
    layer: 2,
    plant: (e) => e.swap(block(1, "input_layernorm"), block(2, "input_layernorm")),
  },
  "norms of one block exchanged": {
    layer: 0,
    plant: (e) => e.swap(block(0, "input_layernorm"), block(0, "post_attention_layernorm")),
  },
  "blocks exchanged": { layer: 2, plant: (e) => exchangeModules(e, "model.layers.1.", "model.layers.2.") },
});

const GATED: Readonly<Record<string, BlockFault>> = {
  "gate and up exchanged": {
    layer: 3,
    plant: (e) => exchange(e, block(1, "mlp.gate_proj"), block(1, "mlp.up_proj")),
  },
};

const expertsIn = (module: string, gate: string, up: string): Readonly<Record<string, BlockFault>> => ({
  "gate and up of an expert exchanged": {
    layer: 3,
    plant: (e) => exchange(e, block(1, `${module}.experts.2.${gate}`), block(1, `${module}.experts.2.${up}`)),
  },
  "experts exchanged": {
    layer: 5,
    plant: (e) =>
      exchangeModules(e, `model.layers.2.${module}.experts.1.`, `model.layers.2.${module}.experts.3.`),
  },
  "rows of a router exchanged": { layer: 1, plant: (e) => e.swapRows(block(0, `${module}.gate`), 0, 1, 1) },
  "routers exchanged": {
    layer: 1,
    plant: (e) => e.swap(block(0, `${module}.gate`), block(1, `${module}.gate`)),
  },
});

const OWN: Readonly<Record<FamilyGolden, Readonly<Record<string, BlockFault>>>> = {
  llama: GATED,
  mistral: GATED,
  qwen2: {
    ...GATED,
    "heads of a bias exchanged": {
      layer: 2,
      plant: (e) => e.swapRows("model.layers.1.self_attn.k_proj.bias", 0, 16, 16),
    },
    "biases of k and v exchanged": {
      layer: 0,
      plant: (e) => e.swap("model.layers.0.self_attn.k_proj.bias", "model.layers.0.self_attn.v_proj.bias"),
    },
  },
  qwen3: {
    ...GATED,
    "norms of q and k exchanged": {
      layer: 4,
      plant: (e) => e.swap(block(2, "self_attn.q_norm"), block(2, "self_attn.k_norm")),
    },
  },
  nemotron: {
    "a norm's bias of another layer": {
      layer: 3,
      plant: (e) =>
        e.swap(
          "model.layers.1.post_attention_layernorm.bias",
          "model.layers.2.post_attention_layernorm.bias",
        ),
    },
    "gains plus one": {
      layer: 3,
      plant: (e) => e.values(block(1, "post_attention_layernorm"), (v) => v + 1),
    },
    "the bias of the last norm dropped": { layer: 8, plant: (e) => e.values("model.norm.bias", () => 0) },
  },
  mixtral: expertsIn("block_sparse_moe", "w1", "w3"),
  qwen3_moe: {
    ...expertsIn("mlp", "gate_proj", "up_proj"),
    "norms of q and k exchanged": {
      layer: 4,
      plant: (e) => e.swap(block(2, "self_attn.q_norm"), block(2, "self_attn.k_norm")),
    },
  },
};

interface SettingFault {
  readonly name: FamilyGolden;
  readonly keys: Readonly<Record<string, unknown>>;
  readonly setting: string;
  /** where the change first shows in a run; null: both sides run the layer kinds and experts of the source */
  readonly at: { readonly layer: number; readonly door: string } | null;
}

const at = (layer: number, door: string) => ({ layer, door });

/** Settings that a conversion may lose or change; no weight changes. */
export const SETTING_FAULTS: readonly SettingFault[] = [
  ...FAMILY_GOLDENS.map((name) => ({
    ...{ name, keys: { rope_theta: 20_000 }, setting: "ropeTheta", at: at(0, "q.turned") },
  })),
  { name: "llama", keys: { rope_scaling: null }, setting: "ropeScaling", at: at(0, "q.turned") },
  { name: "llama", keys: { rms_norm_eps: 1e-6 }, setting: "eps", at: at(0, "u") },
  { name: "mistral", keys: { sliding_window: null }, setting: "pattern", at: at(0, "a") },
  { name: "mistral", keys: { sliding_window: 25 }, setting: "window", at: at(0, "a") },
  {
    name: "qwen2",
    keys: { use_sliding_window: true, sliding_window: 24, max_window_layers: 2 },
    setting: "pattern",
    at: null,
  },
  { name: "nemotron", keys: { partial_rotary_factor: 1 }, setting: "rotary", at: at(0, "q.turned") },
  { name: "nemotron", keys: { norm_eps: 1e-6 }, setting: "eps", at: at(0, "u") },
  { name: "mixtral", keys: { num_experts_per_tok: 1 }, setting: "topK", at: null },
  { name: "qwen3_moe", keys: { norm_topk_prob: false }, setting: "routeNormalise", at: at(1, "weights") },
];

/** The faults of a golden by name. */
export const faultsIn = (name: FamilyGolden): Readonly<Record<string, BlockFault>> => ({
  ...inAttention(HEAD[name]),
  ...OWN[name],
});

export const copyOfGolden = (name: FamilyGolden): Promise<Copy> => copyOf(familyGolden(name));
