/**
 * Wrong tables of uses in the families beside Nemotron-H. The bytes rung must be blind to them, because they lie in code: the
 * logits rung alone must see each, at its layer and door.
 */
import { afterAll, describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import type { Native } from "../../src/families/forward.ts";
import { seededIds } from "../../src/inference/prompts.ts";
import { logitsRung } from "../../src/verify/logits.ts";
import { familyGolden, workFolder } from "../support/goldens.ts";
import { copyOfGolden, FAMILY_GOLDENS, type FamilyGolden } from "../support/verify/family-faults.ts";
import { copyOf, opened } from "../support/verify/planted.ts";
import { exchange, halves, refed, renamed, runBy } from "../support/verify/wiring.ts";

const work = workFolder();
const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const PROMPT = { ids: seededIds(17, 0, 500), textTokens: 0 };
const score = { planted: 0, named: 0 };
afterAll(() => console.log(`faults in code: ${score.named}/${score.planted} named by the logits rung alone`));

type WiringFault = readonly [change: (native: Native) => Native, layer: number, door: string];
type WiringFaults = Readonly<Record<string, WiringFault>>;

/** The first block has the layers 0 and 1. Mistral's attention has a window in each block. */
const inEach = (name: FamilyGolden): WiringFaults => {
  const attention = name === "mistral" ? "sliding_attention" : "attention";
  const product = (stream: string) => (name === "qwen2" ? `${stream}.product` : stream);
  const weight = (stream: string) => `self_attn.${stream}_proj.weight`;
  return {
    "k and v exchanged": [renamed(attention, weight("k"), weight("v")), 0, product("k")],
    "heads of k exchanged": [refed(attention, weight("k"), halves(product("k"))), 0, product("k")],
    "heads of v exchanged": [refed(attention, weight("v"), halves(product("v"))), 0, product("v")],
    "halves of q exchanged": [refed(attention, weight("q"), halves(product("q"))), 0, product("q")],
    "halves of o exchanged": [refed(attention, weight("o"), halves("out")), 0, "out"],
    "the other norm of the block": [
      renamed(attention, "input_layernorm.weight", "post_attention_layernorm.weight"),
      0,
      "u",
    ],
  };
};

const GATED: WiringFaults = {
  "gate and up exchanged": [renamed("mlp", "mlp.gate_proj.weight", "mlp.up_proj.weight"), 1, "gate"],
  "halves of down exchanged": [refed("mlp", "mlp.down_proj.weight", halves("out")), 1, "out"],
};

const HEAD_NORMS: WiringFaults = {
  "norms of q and k exchanged": [
    renamed("attention", "self_attn.q_norm.weight", "self_attn.k_norm.weight"),
    0,
    "q.normed",
  ],
};

const experts = (module: string, gate: string, up: string, down: string): WiringFaults => ({
  "gate and up exchanged": [
    renamed("moe", `${module}.experts.{expert}.${gate}.weight`, `${module}.experts.{expert}.${up}.weight`),
    1,
    "expert.gate.0",
  ],
  "halves of down exchanged": [
    refed("moe", `${module}.experts.{expert}.${down}.weight`, halves("expert.down")),
    1,
    "expert.down.0",
  ],
  "experts of the router's rows exchanged": [
    refed("moe", `${module}.gate.weight`, halves("route")),
    1,
    "route",
  ],
});

const OWN: Readonly<Record<FamilyGolden, WiringFaults>> = {
  llama: GATED,
  mistral: GATED,
  qwen2: {
    ...GATED,
    "biases of k and v exchanged": [
      renamed("attention", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
      0,
      "k",
    ],
    "heads of a bias exchanged": [refed("attention", "self_attn.q_proj.bias", halves("q.bias")), 0, "q"],
  },
  qwen3: { ...GATED, ...HEAD_NORMS },
  nemotron: {
    "halves of up exchanged": [refed("mlp", "mlp.up_proj.weight", halves("up")), 1, "up"],
    "gain and bias of a norm exchanged": [
      (native) =>
        refed(
          "mlp",
          "post_attention_layernorm.bias",
          exchange("shift", "gain"),
        )(refed("mlp", "post_attention_layernorm.weight", exchange("shift", "gain"))(native)),
      1,
      "u",
    ],
  },
  mixtral: experts("block_sparse_moe", "w1", "w3", "w2"),
  qwen3_moe: { ...experts("mlp", "gate_proj", "up_proj", "down_proj"), ...HEAD_NORMS },
};

describe.each(FAMILY_GOLDENS)("%s", async (name) => {
  const out = `${work}/${name}`;
  await convert(familyGolden(name), out, { to: "hf", dtype: "fp8-e4m3", verify: "off" });
  const source = await loadModelWithScales(await opened(await copyOfGolden(name)), {});
  const recast = await loadModelWithScales(await opened(await copyOf(out)), {});
  const faults = Object.entries({ ...inEach(name), ...OWN[name] });

  describe.each([
    ["kept", source],
    ["recast to FP8", recast],
  ] as const)("%s", (_, destination) => {
    it.each(faults)("%s", async (_, [change, layer, door]) => {
      score.planted++;
      const rung = await logitsRung(source, runBy(destination, change), QUICK, PROMPT);
      expect(rung.verdict).toBe("different");
      expect(rung.bad[0]).toMatchObject({ layer, door });
      score.named++;
    });

    it("none: no door is bad", async () => {
      expect((await logitsRung(source, destination, QUICK, PROMPT)).bad).toEqual([]);
    });
  });
});

it("two experts taken for one another are named, each by its own doors", async () => {
  const source = await loadModelWithScales(await opened(await copyOfGolden("qwen3_moe")), {});
  const name = (expert: number) => `model.layers.1.mlp.experts.${expert}.up_proj.weight`;
  const as = (a: number, b: number) => [name(a), { ...source.tensors.get(name(b))!, name: name(a) }] as const;
  const wrong = { ...source, tensors: new Map([...source.tensors, as(2, 7), as(7, 2)]) };
  const rung = await logitsRung(source, wrong, QUICK, PROMPT);
  const doors = rung.bad.filter(({ layer }) => layer === 3).map(({ door }) => door);
  expect(doors.filter((door) => door.startsWith("expert.up"))).toEqual(["expert.up.2", "expert.up.7"]);
});

const QKV = "self_attention.linear_qkv.weight";
const FC1 = "mlp.linear_fc1.weight";
const EXPERTS = "mlp.experts.experts.linear_fc1.weight";

const FUSED: WiringFaults = {
  "k and v exchanged": [refed("attention", QKV, exchange("k", "v")), 0, "k"],
  "halves of q exchanged": [refed("attention", QKV, halves("q")), 0, "q"],
  "gate and up exchanged": [refed("mlp", FC1, exchange("gate", "up")), 1, "gate"],
};

/** Checkpoints that Megatron wrote, and their twins: each side runs in its own dialect. */
const MEGATRON: Readonly<Record<string, readonly [twin: string, WiringFaults]>> = {
  "llama-nemo2": ["llama", FUSED],
  "llama-ranks-tp2-pp2": ["llama", FUSED],
  "qwen2-hybrid": [
    "qwen2",
    {
      "products of k and v exchanged": [
        refed("attention", QKV, exchange("k.product", "v.product")),
        0,
        "k.product",
      ],
      "biases of k and v exchanged": [
        refed("attention", "self_attention.linear_qkv.bias", exchange("k.bias", "v.bias")),
        0,
        "k",
      ],
    },
  ],
  "nemotron-nemo2-tp2": [
    "nemotron",
    { "halves of up exchanged": [refed("mlp", FC1, halves("up")), 1, "up"] },
  ],
  "qwen3_moe-bridge-ep2": [
    "qwen3_moe",
    {
      "gate and up exchanged": [
        refed("moe", EXPERTS, exchange("expert.gate", "expert.up")),
        1,
        "expert.gate.0",
      ],
      "norms of q and k exchanged": [
        renamed("attention", "self_attention.q_layernorm.weight", "self_attention.k_layernorm.weight"),
        0,
        "q.normed",
      ],
    },
  ],
};

describe.each(Object.entries(MEGATRON))("%s", async (name, [twin, faults]) => {
  const source = await loadModelWithScales(await opened(await copyOfGolden(twin as FamilyGolden)), {});
  const destination = await loadModelWithScales(await openCheckpoint(familyGolden(name)), {});

  it.each(Object.entries(faults))("%s", async (_, [change, layer, door]) => {
    score.planted++;
    const rung = await logitsRung(source, runBy(destination, change), QUICK, PROMPT);
    expect(rung.verdict).toBe("different");
    expect(rung.bad[0]).toMatchObject({ layer, door });
    score.named++;
  });

  it("none: no door is bad", async () => {
    expect((await logitsRung(source, destination, QUICK, PROMPT)).bad).toEqual([]);
  });
});
