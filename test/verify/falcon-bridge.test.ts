/**
 * Falcon-H1 of Megatron-Bridge runs on its own stored tensors: what a hand-made checkpoint holds is the model that it was cut
 * from, and a fault is named at its layer and door, whether it lies in bytes, in the record or in the table of uses.
 */
import { describe, expect, it } from "vitest";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import type { Native } from "../../src/families/forward.ts";
import { seededIds } from "../../src/inference/prompts.ts";
import { logitsRung } from "../../src/verify/logits.ts";
import { errorOf } from "../support/errors.ts";
import { familyGolden } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { falconInBridge, normed, openedFalcon, RECORD } from "../support/verify/falcon-copy.ts";
import { type Copy, copyOf, Editor, opened } from "../support/verify/planted.ts";
import { expectClean, expectNamed, keepScore } from "../support/verify/score.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";
import { exchange, halves, refed, renamed, runBy } from "../support/verify/wiring.ts";

const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const PROMPT = { ids: seededIds(17, 0, 512), textTokens: 0 };
const score = keepScore("Falcon-H1 of Megatron-Bridge");
const source = await copyOf(familyGolden("falcon_h1"));

const withNorm = normed(source);

/** Whose head is the token table. */
const tied = new Editor(source);
tied.config({ tie_word_embeddings: true });
tied.drop("lm_head.weight");

describe("a right cut is the same model", () => {
  it.each<[what: string, hf: Copy, rows: number, record: Checkpoint["config"]]>([
    ["as it is", source, 512, {}],
    ["with rows of padding", source, 640, { should_pad_vocab: true }],
    ["with the norm inside the mixer", withNorm, 512, { rmsnorm: true }],
    ["with a tied head", tied.copy, 512, { share_embeddings_and_output_weights: true }],
  ])("%s", async (_, hf, rows, record) => {
    const bridge = () => openedFalcon(falconInBridge(hf, rows), record);
    for (const [a, b] of [
      [await opened(hf), bridge()],
      [bridge(), await opened(hf)],
    ] as const) {
      const report = await verifyCheckpoints(a, b, QUICK);
      expectClean(score, report, "same");
      expect(report.roots.a).toBe(report.roots.b);
      const { controls, wiring, maxAbs } = metricsWith(report, "logits", "controls");
      expect(controls.length).toBeGreaterThan(20);
      expect(controls.filter(({ caught }) => caught === false)).toEqual([]);
      expect([wiring.limit, maxAbs]).toEqual([0, 0]);
    }
  });
});

const NORMS = ["mamba_mixer.in_proj.layer_norm_weight", "self_attention.linear_qkv.layer_norm_weight"];

describe("the norm of older releases, which is in both modules that it feeds", () => {
  const older = (change: (e: Editor) => void = () => {}) => {
    const editor = new Editor(falconInBridge(source));
    for (let block = 0; block < 3; block++) {
      const { dtype, shape, bytes } = editor.get(`decoder.layers.${block}.norm.weight`);
      for (const name of NORMS) editor.add(`decoder.layers.${block}.${name}`, dtype, shape, bytes);
      editor.drop(`decoder.layers.${block}.norm.weight`);
    }
    change(editor);
    return openedFalcon(editor.copy);
  };

  it("is one norm, and a note says what that release computed", async () => {
    const { notes } = await loadModelWithScales(older(), {});
    expect(notes.join()).toMatch(/without ssm_in_multiplier and attention_in_multiplier/);
    expect((await loadModelWithScales(openedFalcon(falconInBridge(source)), {})).notes).toEqual([]);
    expectClean(score, await verifyCheckpoints(await opened(source), older(), QUICK), "same");
  });

  it("must be equal in the two", async () => {
    const name = `decoder.layers.1.${NORMS[1]}`;
    const unequal = older((e) => e.flip(name, 3));
    const report = await verifyCheckpoints(await opened(source), unequal, QUICK);
    expectNamed(score, report, 2);
    const { differences } = metricsWith(report, "bytes", "differences");
    expect(JSON.stringify(differences)).toContain(
      `element 3 of ${name} differs from decoder.layers.1.${NORMS[0]}; the two must be copies`,
    );
  });

  it("may not lack the mixer's", async () => {
    const without = older((e) => e.drop(`decoder.layers.2.${NORMS[0]}`));
    const error = await errorOf(async () => verifyCheckpoints(await opened(source), without, QUICK));
    expect(error).toMatchObject({ code: "TENSOR_MISSING", at: { tensor: "decoder.layers.2.norm.weight" } });
  });
});

/** Layers of ours: a block is two, the mixers and the MLP. */
const FAULTS: Readonly<Record<string, readonly [layer: number, plant: (e: Editor) => void]>> = {
  "z and x exchanged": [2, (e) => e.swap(mixer("in_proj.weight.z"), mixer("in_proj.weight.x"))],
  "B and C exchanged": [2, (e) => e.swap(mixer("in_proj.weight.B"), mixer("in_proj.weight.C"))],
  "groups of B exchanged": [2, (e) => e.swapRows(mixer("in_proj.weight.B"), 0, 16, 16)],
  "heads of dt reversed": [2, (e) => reverseRows(e, mixer("in_proj.weight.dt"))],
  "taps of B and C exchanged": [2, (e) => e.swap(mixer("conv1d.weight.B"), mixer("conv1d.weight.C"))],
  "taps reversed": [2, (e) => e.columns(mixer("conv1d.weight.x"), (tap, taps) => taps - 1 - tap)],
  "biases of B and C exchanged": [2, (e) => e.swap(mixer("conv1d.bias.B"), mixer("conv1d.bias.C"))],
  "A_log and dt_bias exchanged": [2, (e) => e.swap(mixer("A_log"), mixer("dt_bias"))],
  "heads of D reversed": [2, (e) => reverseRows(e, mixer("D"))],
  "out_proj and linear_proj exchanged": [
    2,
    (e) => e.swap(mixer("out_proj.weight"), block("self_attention.linear_proj.weight")),
  ],
  "queries, keys and values not by group": [
    2,
    (e) => {
      const { bytes } = e.get(block("self_attention.linear_qkv.weight")); // [q q k v] twice
      const heads = [0, 1, 4, 5, 2, 6, 3, 7].map((head) => bytes.slice(head * ROWS, (head + 1) * ROWS));
      e.put(block("self_attention.linear_qkv.weight"), { bytes: Buffer.concat(heads) });
    },
  ],
  "the norms of a block exchanged": [
    2,
    (e) => e.swap(block("norm.weight"), block("mlp.linear_fc1.layer_norm_weight")),
  ],
  "gate and up exchanged": [3, (e) => e.swapRows(block("mlp.linear_fc1.weight"), 0, 80, 80)],
  "gate and up row by row": [
    3,
    (e) => e.rows(block("mlp.linear_fc1.weight"), (row) => (row % 2) * 80 + Math.floor(row / 2)),
  ],
  "columns of fc2 shifted": [3, (e) => e.columns(block("mlp.linear_fc2.weight"), (i, all) => (i + 1) % all)],
};

const block = (part: string) => `decoder.layers.1.${part}`;
const mixer = (part: string) => block(`mamba_mixer.${part}`);
const reverseRows = (e: Editor, name: string) => e.rows(name, (row, all) => all - 1 - row);
/** Bytes of the rows of one head. */
const ROWS = 24 * 64 * 2;

it.each(Object.entries(FAULTS))("%s in the bytes is different, at its layer", async (_, [layer, plant]) => {
  const editor = new Editor(falconInBridge(source));
  plant(editor);
  expectNamed(score, await verifyCheckpoints(await opened(source), openedFalcon(editor.copy), QUICK), layer);
});

describe("a record of another model is different, by its setting", () => {
  const SETTING: Readonly<Record<string, string>> = {
    ...{ layernorm_epsilon: "eps", rotary_base: "ropeTheta", seq_len_interpolation_factor: "ropeFactor" },
  };
  const camelCase = (key: string) => key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());
  /** One unit in the last place of a double: a multiplier is compared as it is written. */
  const next = (value: number) => value * (1 + Number.EPSILON);
  const multipliers = Object.keys(RECORD).filter((key) => /_multipliers?$/.test(key));
  const others = { layernorm_epsilon: 1e-6, rotary_base: 10_000, seq_len_interpolation_factor: 2 };

  it("there are nine keys of multipliers", () => expect(multipliers).toHaveLength(9));

  it.each(multipliers)("%s", async (key) => {
    const value = RECORD[key];
    const changed = Array.isArray(value) ? [...value.slice(0, -1), next(value.at(-1))] : next(Number(value));
    await expectDifferent(key, changed);
  });
  it.each(Object.entries(others))("%s %s", async (key, value) => expectDifferent(key, value));

  async function expectDifferent(key: string, value: unknown) {
    score.planted++;
    const wrong = openedFalcon(falconInBridge(source), { [key]: value });
    const report = await verifyCheckpoints(await opened(source), wrong, QUICK);
    expect(report.verdict).toBe("different");
    const { settings } = metricsWith(report, "cover", "settings");
    expect(settings.join()).toMatch(SETTING[key] ?? camelCase(key));
    score.caught++;
  }
});

/** In the table of uses; the first block has the layers 0 and 1. */
const WIRING: Readonly<Record<string, readonly [(native: Native) => Native, layer: number, door: string]>> = {
  "z and x exchanged": [renamedIn("in_proj.weight.z", "in_proj.weight.x"), 0, "z"],
  "B and C exchanged": [renamedIn("in_proj.weight.B", "in_proj.weight.C"), 0, "B"],
  "groups of B exchanged": [refed("hybrid", own("in_proj.weight.B"), halves("B")), 0, "B"],
  "heads of dt exchanged": [refed("hybrid", own("in_proj.weight.dt"), halves("dt")), 0, "dt"],
  "taps of B and C exchanged": [renamedIn("conv1d.weight.B", "conv1d.weight.C"), 0, "conv.B"],
  "biases of B and C exchanged": [renamedIn("conv1d.bias.B", "conv1d.bias.C"), 0, "conv.B"],
  "A_log and dt_bias exchanged": [renamedIn("A_log", "dt_bias"), 0, "y"],
  "D and dt_bias exchanged": [renamedIn("D", "dt_bias"), 0, "y"],
  "halves of out_proj exchanged": [refed("hybrid", own("out_proj.weight"), halves("ssm.out")), 0, "ssm.out"],
  "halves of linear_proj exchanged": [
    refed("hybrid", "self_attention.linear_proj.weight", halves("attn.out")),
    0,
    "attn.out",
  ],
  "k and v exchanged": [refed("hybrid", "self_attention.linear_qkv.weight", exchange("k", "v")), 0, "k"],
  "halves of q exchanged": [refed("hybrid", "self_attention.linear_qkv.weight", halves("q")), 0, "q"],
  "gate and up exchanged": [refed("mlp", "mlp.linear_fc1.weight", exchange("gate", "up")), 1, "gate"],
  "halves of fc2 exchanged": [refed("mlp", "mlp.linear_fc2.weight", halves("down")), 1, "down"],
  "the other norm of the block": [
    renamed("hybrid", "norm.weight", "mlp.linear_fc1.layer_norm_weight"),
    0,
    "u",
  ],
  "words of the head exchanged": [refed("head", "output_layer.weight", halves("logits")), 6, "logits"],
};

function own(name: string): string {
  return `mamba_mixer.${name}`;
}
function renamedIn(a: string, b: string): (native: Native) => Native {
  return renamed("hybrid", own(a), own(b));
}
describe("a wrong table of uses, which the bytes cannot show", async () => {
  const right = await loadModelWithScales(await opened(source), {});
  const stored = await loadModelWithScales(openedFalcon(falconInBridge(source)), {});

  it.each(Object.entries(WIRING))("%s", async (_, [change, layer, door]) => {
    const rung = await logitsRung(right, runBy(stored, change), QUICK, PROMPT);
    expect(rung.verdict).toBe("different");
    expect(rung.bad[0]).toMatchObject({ layer, door });
  });

  it("none: no door is bad", async () => {
    expect((await logitsRung(right, stored, QUICK, PROMPT)).bad).toEqual([]);
  });

  it("the gain inside the mixer for another", async () => {
    const [a, b] = [
      await loadModelWithScales(await opened(withNorm), {}),
      await loadModelWithScales(openedFalcon(falconInBridge(withNorm), { rmsnorm: true }), {}),
    ];
    const rung = await logitsRung(
      a,
      runBy(b, refed("hybrid", own("norm.weight"), halves("gate.gain"))),
      QUICK,
      PROMPT,
    );
    expect(rung.bad[0]).toMatchObject({ layer: 0, door: "g" });
  });
});
