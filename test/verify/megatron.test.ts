/**
 * Megatron's dialects run on their own stored tensors: what they hold is the model they were cut from, however it was
 * cut, and what is laid out wrongly is named, at its layer and door.
 */
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { seededIds } from "../../src/inference/prompts.ts";
import { logitsRung } from "../../src/verify/logits.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { type Cut, inMegatron, openedMegatron } from "../support/verify/megatron-copy.ts";
import { type Copy, copyOf, Editor, opened } from "../support/verify/planted.ts";
import { expectClean, expectNamed, keepScore } from "../support/verify/score.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const PROMPT = { ids: seededIds(17, 0, 512), textTokens: 0 };
const work = workFolder();
const score = keepScore("layouts of Megatron");

const VOCAB = 512;
const dist: Cut = { dialect: "megatron", tp: 1, stages: [0], ep: 1, rows: 640 };
const tp2: Cut = { dialect: "megatron-ranks", tp: 2, stages: [0], ep: 1, rows: 768 };
const one: Cut = { ...tp2, tp: 1, rows: VOCAB };

const copies = {
  tiny: await copyOf(golden("tiny")),
  moe: await copyOf(golden("moe")),
  "latent-moe": await copyOf(golden("latent-moe")),
};

async function checkpoint(copy: Copy, cut: Cut, plant: (e: Editor) => void = () => {}) {
  const made = await inMegatron(copy, cut);
  const editor = new Editor(made);
  plant(editor);
  return openedMegatron(editor.copy, made.config, cut, VOCAB);
}

describe("a right cut is the same model", () => {
  it.each([
    ["tiny", "keys of a distributed checkpoint, padded", dist, 0],
    ["tiny", "one rank", one, 0],
    ["tiny", "two tensor parallel ranks, padded", tp2, 1e-5],
    ["tiny", "two of each", { ...tp2, stages: [0, 4] }, 1e-5],
    ["tiny", "three pipeline stages", { ...one, stages: [0, 3, 6] }, 0],
    ["moe", "experts stacked", dist, 0],
    ["moe", "experts of two ranks", { ...one, ep: 2 }, 0],
    ["moe", "experts of four ranks, each in two parts", { ...tp2, ep: 4, stages: [0, 5] }, 1e-5],
    ["latent-moe", "latent experts stacked, and prediction layers", dist, 0],
    ["latent-moe", "latent experts of ranks, and prediction layers", { ...tp2, ep: 2, stages: [0, 4] }, 1e-5],
  ] as const)("%s: %s", async (name, _, cut, limit) => {
    const copy = copies[name];
    const report = await verifyCheckpoints(await opened(copy), await checkpoint(copy, cut), QUICK);
    expectClean(score, report, "same");
    expect(report.roots.a).toBe(report.roots.b);
    const { controls, wiring, maxAbs, routing } = metricsWith(report, "logits", "controls");
    expect(controls.length).toBeGreaterThan(20);
    expect(controls.filter(({ caught }) => caught === false)).toEqual([]);
    expect(wiring.limit).toBeLessThanOrEqual(limit);
    expect(routing.flips).toBe(0);
    expect(limit === 0 ? maxAbs : 0).toBe(0);
    expect(wiring.maxRelL2 > 0).toBe(limit > 0); // two ranks' partial sums are another order
  });

  it("both sides cut alike sum in one order: the same bits", async () => {
    const [a, b] = [await checkpoint(copies.tiny, tp2), await checkpoint(copies.tiny, tp2)];
    const { metrics, verdict } = await logitsRung(
      await loadModelWithScales(a, {}),
      await loadModelWithScales(b, {}),
      QUICK,
      PROMPT,
    );
    expect(verdict).toBe("same");
    expect([metrics.maxAbs, metrics.wiring.limit]).toEqual([0, 0]);
  });
});

describe("a recast of it is within, and its wiring exact where no sum is cut", () => {
  it.each([
    ["tiny", dist, 0],
    ["tiny", tp2, 1e-5],
    ["moe", dist, 0],
    ["moe", { ...tp2, ep: 2 }, 1e-5],
    ["latent-moe", dist, 0],
  ] as const)("%s, %o", async (name, cut, limit) => {
    // q, k and v of a fused matrix, and the experts of a stack, have scales of their own
    const out = `${work}/${name}-${cut.dialect}-${cut.ep}`;
    const options = { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", verify: "off" } as const;
    await convert(golden(name), out, options);
    const source = await checkpoint(copies[name], cut);
    const report = await verifyCheckpoints(source, await opened(await copyOf(out)), QUICK);
    expectClean(score, report, "within");
    expect(report.limits.wiring).toBeLessThanOrEqual(limit);
  });
});

interface Fault {
  readonly copy: Copy;
  readonly cut: Cut;
  readonly layer: number;
  readonly door: string;
  readonly plant: (e: Editor) => void;
}

/** tiny: M-M*-M*-M; 4 query heads and 2 key-value heads of 16: groups of 32, 16, 16 rows. moe: MEM*EMEM*E. */
const QKV = "decoder.layers.3.self_attention.linear_qkv.weight";
const on = (copy: Copy, cut: Cut, layer: number, door: string, plant: Fault["plant"]): Fault => ({
  ...{ copy, cut, layer, door, plant },
});
const { tiny, moe } = copies;

const FAULTS: Readonly<Record<string, Fault>> = {
  "q, k and v one after the other, not by group": on(tiny, dist, 3, "q", (e) =>
    e.rows(QKV, (r) =>
      r < 64 ? (r < 32 ? r : r + 32) : r < 96 ? (r < 80 ? r - 32 : r + 16) : r < 112 ? r - 48 : r,
    ),
  ),
  "k and v of each group swapped": on(tiny, dist, 3, "k", (e) =>
    e.rows(QKV, (r) => (r % 64 < 32 ? r : r % 64 < 48 ? r + 16 : r - 16)),
  ),
  "two groups of heads swapped": on(tiny, dist, 3, "q", (e) => e.swapRows(QKV, 0, 64, 64)),
  "two groups of heads on the wrong rank": on(tiny, tp2, 3, "q", (e) =>
    e.swap(`${QKV}@0.0.0`, `${QKV}@1.0.0`),
  ),
  "z and x swapped": on(tiny, dist, 2, "z", (e) =>
    e.swap("decoder.layers.2.mixer.in_proj.weight.z", "decoder.layers.2.mixer.in_proj.weight.x"),
  ),
  "z and x of a slab swapped": on(tiny, tp2, 2, "z", (e) =>
    e.swapRows("decoder.layers.2.mixer.in_proj.weight@1.0.0", 0, 64, 64),
  ),
  "B and C swapped": on(tiny, dist, 5, "B", (e) =>
    e.swap("decoder.layers.5.mixer.in_proj.weight.B", "decoder.layers.5.mixer.in_proj.weight.C"),
  ),
  "B and C of a slab swapped": on(tiny, tp2, 5, "B", (e) =>
    e.swapRows("decoder.layers.5.mixer.in_proj.weight@0.0.0", 128, 144, 16),
  ),
  "slabs cut as one matrix": on(tiny, tp2, 0, "z", (e) => {
    // rows of the whole [z | x | B | C | dt] dealt out evenly, as if the slab were any matrix
    const name = (tp: number) => `decoder.layers.0.mixer.in_proj.weight@${tp}.0.0`;
    const sizes = [64, 64, 16, 16, 4];
    const [first, second] = [0, 1].map((tp) => Uint8Array.from(e.get(name(tp)).bytes));
    const row = first!.byteLength / 164;
    let at = 0;
    const parts = sizes.flatMap((size) => {
      const span = [at * row, (at + size) * row] as const;
      at += size;
      return [first!.subarray(...span), second!.subarray(...span)];
    });
    const whole = Buffer.concat(parts);
    e.put(name(0), { bytes: whole.subarray(0, whole.length / 2) });
    e.put(name(1), { bytes: whole.subarray(whole.length / 2) });
  }),
  "taps of B and C swapped": on(tiny, tp2, 2, "conv.B", (e) =>
    e.swapRows("decoder.layers.2.mixer.conv1d_weight@0.0.0", 64, 80, 16),
  ),
  "a rank's part of out_proj doubled": on(tiny, tp2, 5, "out", (e) =>
    e.values("decoder.layers.5.mixer.out_proj.weight@1.0.0", (v) => 2 * v),
  ),
  "a rank's part of fc2 in place of the other's": on(tiny, tp2, 1, "out", (e) => {
    const { bytes } = e.get("decoder.layers.1.mlp.linear_fc2.weight@0.0.0");
    e.put("decoder.layers.1.mlp.linear_fc2.weight@1.0.0", { bytes });
  }),
  "parts of linear_proj swapped": on(tiny, tp2, 6, "out", (e) => {
    const name = (tp: number) => `decoder.layers.6.self_attention.linear_proj.weight@${tp}.0.0`;
    e.swap(name(0), name(1));
  }),
  "the token table shifted by a row": on(tiny, dist, -1, "residual", (e) =>
    e.rows("embedding.word_embeddings.weight", (r, n) => (r + 1) % n),
  ),
  "the head shifted by a row": on(tiny, tp2, 9, "logits", (e) =>
    e.rows("output_layer.weight@0.0.0", (r, n) => (r + 1) % n),
  ),
  "the token table's parts swapped": on(tiny, { ...tp2, rows: VOCAB }, -1, "residual", (e) =>
    e.swap("embedding.word_embeddings.weight@0.0.0", "embedding.word_embeddings.weight@1.0.0"),
  ),
  "pipeline stages' layers confused": on(tiny, { ...one, stages: [0, 3] }, 1, "up", (e) =>
    e.swap("decoder.layers.1.mlp.linear_fc1.weight@0.0.0", "decoder.layers.1.mlp.linear_fc1.weight@0.1.0"),
  ),
  "stacked experts permuted": on(moe, dist, 4, "expert.up.1", (e) =>
    e.rows("decoder.layers.4.mlp.experts.experts.linear_fc1.weight", (r) => (r === 1 ? 6 : r === 6 ? 1 : r)),
  ),
  "experts of two ranks exchanged": on(moe, { ...one, ep: 2 }, 1, "expert.down.2", (e) => {
    const name = (ep: number) => `decoder.layers.1.mlp.experts.local_experts.2.linear_fc2.weight@0.0.${ep}`;
    e.swap(name(0), name(1));
  }),
  "rows of the router swapped": on(moe, dist, 6, "route", (e) =>
    e.swapRows("decoder.layers.6.mlp.router.weight", 0, 1, 1),
  ),
};

describe("layouts: a wrong one is different, at its layer", () => {
  it.each(Object.entries(FAULTS))("%s", async (_, { copy, cut, layer, door, plant }) => {
    const [source, wrong] = [await opened(copy), await checkpoint(copy, cut, plant)];
    const rung = await logitsRung(
      await loadModelWithScales(source, {}),
      await loadModelWithScales(wrong, {}),
      QUICK,
      PROMPT,
    );
    expect(rung.verdict).toBe("different");
    expect(rung.bad[0]).toMatchObject({ layer, door });
    expectNamed(score, await verifyCheckpoints(source, wrong, QUICK), layer);
  });
});
