/**
 * Every check must be able to fail: single faults, each planted in a copy of a golden, against the golden or
 * against a right recast of it. Each must be `different` at the right layer, or refused with its code.
 */
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import type { ErrorCode } from "../../src/core/errors.ts";
import { codeOf } from "../support/errors.ts";
import { floatsOf, golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { type Copy, codesOf, copyOf, Editor, oneF32, opened } from "../support/verify/planted.ts";
import { expectClean, expectNamed, keepScore } from "../support/verify/score.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };

const tiny = await copyOf(golden("tiny"));
const moe = await copyOf(golden("moe"));
const latent = await copyOf(golden("latent-moe"));
await convert(golden("tiny"), `${work}/fp8`, {
  to: "hf",
  dtype: "fp8-e4m3",
  recipe: "all-linear",
  verify: "off",
});
const fp8 = await copyOf(`${work}/fp8`);

const score = keepScore("faults in Hugging Face folders");

interface Fault {
  readonly layer: number;
  /** part of the name of a tensor that must be blamed */
  readonly blames?: string;
  readonly plant: (e: Editor) => void;
  /** another tool may write it within the bound of a rounding; this version never does */
  readonly ours?: true;
}

async function planted(source: Copy, right: Copy, fault: Fault, options: VerifyOptions) {
  const { plant, layer, blames, ours = false } = fault;
  const editor = new Editor(right);
  plant(editor);
  const report = await verifyCheckpoints(await opened(source), await opened(editor.copy), options, ours);
  expectNamed(score, report, layer);
  expect(report.firstDivergence?.tensors.join(" ")).toContain(blames ?? "");
  return report;
}

const at = (layer: number, part: string) => `backbone.layers.${layer}.mixer.${part}`;
const norm = (layer: number) => `backbone.layers.${layer}.norm.weight`;
const EMBED = "backbone.embeddings.weight";

/** tiny: M-M*-M*-M, 8 heads x 16, 2 groups x 16 states: in_proj rows are z 128, x 128, B 32, C 32, dt 8. */
const [X, B, C, DT] = [128, 256, 288, 320];
const bit = (layer: number, name: string, element?: number): Fault => ({
  layer,
  blames: name,
  plant: (e) => e.flip(name, element),
});

const WEIGHTS: Readonly<Record<string, Fault>> = {
  "z and x swapped": { layer: 2, plant: (e) => e.swapRows(at(2, "in_proj.weight"), 0, X, 128) },
  "B and C swapped": { layer: 5, plant: (e) => e.swapRows(at(5, "in_proj.weight"), B, C, 32) },
  "groups of B swapped": { layer: 5, plant: (e) => e.swapRows(at(5, "in_proj.weight"), B, B + 16, 16) },
  "groups of C swapped": { layer: 8, plant: (e) => e.swapRows(at(8, "in_proj.weight"), C, C + 16, 16) },
  "heads of dt reversed": {
    layer: 8,
    plant: (e) => e.rows(at(8, "in_proj.weight"), (r) => (r < DT ? r : DT + 7 - (r - DT))),
  },
  "two heads of x swapped": { layer: 0, plant: (e) => e.swapRows(at(0, "in_proj.weight"), X, X + 16, 16) },
  "dt before z": {
    layer: 2,
    plant: (e) => e.rows(at(2, "in_proj.weight"), (r, rows) => (r + rows - 8) % rows),
  },
  "a bit of the token table": bit(-1, EMBED, 7),
  "a bit of a norm": bit(0, norm(0)),
  "a bit of in_proj": bit(0, at(0, "in_proj.weight"), 12345),
  "a bit of conv1d.weight": bit(0, at(0, "conv1d.weight"), 5),
  "a bit of conv1d.bias": bit(2, at(2, "conv1d.bias"), 191),
  "a bit of A_log": bit(2, at(2, "A_log"), 7),
  "a bit of D": bit(5, at(5, "D"), 3),
  "a bit of dt_bias": bit(5, at(5, "dt_bias")),
  "a bit of the gated norm": bit(8, at(8, "norm.weight"), 127),
  "a bit of out_proj": bit(8, at(8, "out_proj.weight"), 8191),
  "a bit of q": bit(3, at(3, "q_proj.weight"), 100),
  "a bit of k": bit(3, at(3, "k_proj.weight")),
  "a bit of v": bit(6, at(6, "v_proj.weight"), 2047),
  "a bit of o": bit(6, at(6, "o_proj.weight"), 1),
  "a bit of up": bit(1, at(1, "up_proj.weight"), 6143),
  "a bit of down": bit(7, at(7, "down_proj.weight")),
  "a bit of the last norm": bit(9, "backbone.norm_f.weight", 63),
  "a bit of the head": bit(9, "lm_head.weight", 32767),
  "in_proj zeroed": { layer: 5, plant: (e) => e.bytes(at(5, "in_proj.weight"), (bytes) => bytes.fill(0)) },
  "k zeroed": { layer: 6, plant: (e) => e.bytes(at(6, "k_proj.weight"), (bytes) => bytes.fill(0)) },
  "q transposed": { layer: 3, plant: (e) => e.transpose(at(3, "q_proj.weight")) },
  "out_proj transposed": { layer: 2, plant: (e) => e.transpose(at(2, "out_proj.weight")) },
  "up transposed": { layer: 4, plant: (e) => e.transpose(at(4, "up_proj.weight")) },
  "up shifted by a row": {
    layer: 4,
    plant: (e) => e.rows(at(4, "up_proj.weight"), (r, rows) => (r + 1) % rows),
  },
  "down, columns reversed": {
    layer: 7,
    plant: (e) => e.columns(at(7, "down_proj.weight"), (c, n) => n - 1 - c),
  },
  "out_proj, halves of its columns swapped": {
    layer: 0,
    plant: (e) => e.columns(at(0, "out_proj.weight"), (c, n) => (c + n / 2) % n),
  },
  "up of neighbouring layers swapped": {
    layer: 1,
    plant: (e) => e.swap(at(1, "up_proj.weight"), at(4, "up_proj.weight")),
  },
  "in_proj of neighbouring layers swapped": {
    layer: 5,
    plant: (e) => e.swap(at(5, "in_proj.weight"), at(8, "in_proj.weight")),
  },
  "q of two layers swapped": {
    layer: 3,
    plant: (e) => e.swap(at(3, "q_proj.weight"), at(6, "q_proj.weight")),
  },
  "k and v swapped": { layer: 3, plant: (e) => e.swap(at(3, "k_proj.weight"), at(3, "v_proj.weight")) },
  "q and o swapped": { layer: 6, plant: (e) => e.swap(at(6, "q_proj.weight"), at(6, "o_proj.weight")) },
  "query heads in another order": {
    layer: 3,
    plant: (e) => e.rows(at(3, "q_proj.weight"), (r) => ((r + 16) % 32) + (r & 32)),
  },
  "query heads interleaved": {
    layer: 6,
    plant: (e) => e.rows(at(6, "q_proj.weight"), (r) => (r % 16) * 4 + Math.floor(r / 16)),
  },
  "key and value heads swapped": { layer: 6, plant: (e) => e.swapRows(at(6, "v_proj.weight"), 0, 16, 16) },
  "conv taps reversed": { layer: 0, plant: (e) => e.columns(at(0, "conv1d.weight"), (c, n) => n - 1 - c) },
  "conv channels of B and C swapped": {
    layer: 2,
    plant: (e) => e.swapRows(at(2, "conv1d.weight"), X, X + 32, 32),
  },
  "conv bias shifted": {
    layer: 5,
    plant: (e) => e.rows(at(5, "conv1d.bias"), (r, rows) => (r + 1) % rows),
  },
  "A for A_log": { layer: 5, plant: (e) => e.values(at(5, "A_log"), (v) => -Math.exp(v)) },
  "A_log with the wrong sign": { layer: 8, plant: (e) => e.values(at(8, "A_log"), (v) => -v) },
  "D dropped": { layer: 2, plant: (e) => e.values(at(2, "D"), () => 0) },
  "dt_bias dropped": { layer: 8, plant: (e) => e.values(at(8, "dt_bias"), () => 0) },
  "D and dt_bias swapped": { layer: 5, plant: (e) => e.swap(at(5, "D"), at(5, "dt_bias")) },
  "norms of two layers swapped": { layer: 3, plant: (e) => e.swap(norm(3), norm(4)) },
  "a gain less one": { layer: 6, plant: (e) => e.values(norm(6), (v) => v - 1) },
  "gains of the gated norm by the other group": {
    layer: 0,
    plant: (e) => e.rows(at(0, "norm.weight"), (r) => (r + 64) % 128),
  },
  "the token table shifted by a row": { layer: -1, plant: (e) => e.rows(EMBED, (r, n) => (r + 1) % n) },
  "token table and head swapped": { layer: -1, plant: (e) => e.swap(EMBED, "lm_head.weight") },
  "two words of the head swapped": { layer: 9, plant: (e) => e.swapRows("lm_head.weight", 5, 6, 1) },
  "the last word dropped": {
    layer: 9,
    plant: (e) => e.bytes("lm_head.weight", (b) => b.fill(0, 511 * 128)),
  },
  "the low bit of every weight cleared": {
    layer: 9,
    plant: (e) => e.bytes("lm_head.weight", (b) => b.set(b.map((v, i) => (i % 2 === 0 ? v & 254 : v)))),
  },
  "a NaN": { layer: 7, plant: (e) => e.values(at(7, "up_proj.weight"), (v, i) => (i === 99 ? NaN : v)) },
  "an infinity": {
    layer: 4,
    plant: (e) => e.values(at(4, "down_proj.weight"), (v, i) => (i === 99 ? Infinity : v)),
  },
  "a widened tensor that was rounded on the way": {
    layer: 1,
    plant: (e) => {
      const name = at(1, "up_proj.weight");
      const values = new Float32Array(e.get(name).bytes.byteLength / 2).fill(0.5);
      e.put(name, { dtype: "F32", bytes: new Uint8Array(values.buffer) });
    },
  },
};

describe("weights: a fault in a copy is different, at its layer", () => {
  it.each(Object.entries(WEIGHTS))("%s", async (_, fault) => {
    await planted(tiny, tiny, fault, QUICK);
  });
});

const scaleOf = (name: string) => floatsOf(fp8.tensors.get(`${name}_scale`)!)[0]!;
const recode = (name: string, to: "F8_E4M3" | "F8_E5M2", scale: number) => (e: Editor) =>
  e.put(name, { bytes: codesOf(tiny.tensors.get(name)!, to, scale) });
const rescale = (name: string, to: (scale: number) => number) => (e: Editor) =>
  e.f32(`${name}_scale`, (scale) => to(scale));
const [UP1, UP4, IN2, DOWN7] = [
  at(1, "up_proj.weight"),
  at(4, "up_proj.weight"),
  at(2, "in_proj.weight"),
  at(7, "down_proj.weight"),
];

const RECASTS: Readonly<Record<string, Fault>> = {
  "a scale 5 % too large": { layer: 1, blames: UP1, plant: rescale(UP1, (s) => s * 1.05) },
  "a scale 5 % too small": { layer: 1, blames: UP1, plant: rescale(UP1, (s) => s * 0.95) },
  "a scale twice as large": { layer: 7, plant: rescale(DOWN7, (s) => s * 2) },
  "the inverse scale": { layer: 2, plant: rescale(IN2, (s) => 1 / s) },
  "a scale rounded to BF16": {
    layer: 2,
    ours: true,
    plant: rescale(IN2, (s) => new Float32Array(new Uint32Array([bits(s) & 0xffff0000]).buffer)[0]!),
  },
  "a scale one unit off": { layer: 4, plant: rescale(UP4, (s) => s * (1 - 2 ** -20)) },
  "the neighbour's scale": { layer: 1, plant: (e) => e.swap(`${UP1}_scale`, `${UP4}_scale`) },
  "codes cast without the scale": { layer: 2, plant: recode(IN2, "F8_E4M3", 1) },
  "codes under the neighbour's scale": { layer: 1, plant: recode(UP1, "F8_E4M3", scaleOf(UP4)) },
  "codes and scale too small: values are clipped": {
    layer: 1,
    plant: (e) => {
      const scale = Math.fround(scaleOf(UP1) / 2);
      recode(UP1, "F8_E4M3", scale)(e);
      rescale(UP1, () => scale)(e);
    },
  },
  "E5M2 codes called E4M3": { layer: 2, plant: recode(IN2, "F8_E5M2", scaleOf(IN2)) },
  "E4M3 codes called E5M2": { layer: 2, plant: (e) => e.put(IN2, { dtype: "F8_E5M2" }) },
  "a code one step off": { ...bit(1, UP1, 77), ours: true },
  "a NaN code": { layer: 1, plant: (e) => e.bytes(UP1, (bytes) => bytes.fill(0x7f, 3, 4)) },
  "signs lost": { layer: 7, plant: (e) => e.bytes(DOWN7, (b) => b.set(b.map((v) => v & 127))) },
  "rounded toward zero": {
    layer: 7,
    plant: (e) => {
      const scale = scaleOf(DOWN7);
      const right = codesOf(tiny.tensors.get(DOWN7)!, "F8_E4M3", scale);
      const wide = codesOf(tiny.tensors.get(DOWN7)!, "F8_E4M3", Math.fround(scale * 1.03));
      e.put(DOWN7, { bytes: right.map((code, i) => Math.min(code, wide[i]!)) });
    },
  },
  "a tensor skipped: its BF16 bytes under the name of codes": {
    layer: 4,
    blames: UP4,
    plant: (e) => e.put(UP4, { bytes: tiny.tensors.get(UP4)!.bytes.slice(0, 6144) }),
  },
  "a scale 1 % off with its codes": {
    layer: 7,
    plant: (e) => {
      const scale = Math.fround(scaleOf(DOWN7) * 1.01);
      recode(DOWN7, "F8_E4M3", scale)(e);
      rescale(DOWN7, () => scale)(e);
      e.flip(DOWN7, 5);
    },
  },
  "two scales of one kind exchanged": {
    layer: 2,
    plant: (e) => e.swap(`${IN2}_scale`, `${at(5, "in_proj.weight")}_scale`),
  },
  "a tensor left out, its codes zero": { layer: 4, plant: (e) => e.bytes(UP4, (b) => b.fill(0)) },
  "z and x swapped": { layer: 2, plant: (e) => e.swapRows(IN2, 0, X, 128) },
  "groups of B swapped": { layer: 2, plant: (e) => e.swapRows(IN2, B, B + 16, 16) },
  "a kept norm changed": bit(3, norm(3)),
  "a kept token table changed": bit(-1, EMBED, 7),
};

function bits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0]!;
}

describe("FP8: a fault in a right recast is different, at its layer", () => {
  it.each(Object.entries(RECASTS))("%s", async (_, fault) => {
    await planted(tiny, fp8, fault, QUICK);
  });

  it("a scale of our own that is not amax/max is no recast of ours; another tool's is named", async () => {
    score.planted++;
    const editor = new Editor(fp8);
    const scale = Math.fround(scaleOf(UP1) * 1.5);
    recode(UP1, "F8_E4M3", scale)(editor);
    rescale(UP1, () => scale)(editor);
    const [a, b] = [await opened(tiny), await opened(editor.copy)];
    const own = await verifyCheckpoints(a, b, { ...QUICK, verify: "bytes" }, true);
    expect(own).toMatchObject({ verdict: "different", firstDivergence: { layer: 1, tensors: [UP1] } });
    const other = await verifyCheckpoints(a, b, { ...QUICK, verify: "bytes" });
    expect(other.verdict).toBe("within");
    expect(other.findings.join()).toContain(`${UP1}: its scale is ${scale}; amax/max is`);
    score.caught++;
  });
});

const scales = (e: Editor) => {
  e.add(at(2, "in_proj.input_scale"), "F32", [], oneF32(0.25));
  e.add("backbone.layers.3.mixer.k_scale", "F32", [1], oneF32(0.5));
};
/** up_proj of layer 4 with one scale a row. */
const perRow = (e: Editor) => {
  const rows = new Float32Array(96).fill(scaleOf(UP4));
  e.put(`${UP4}_scale`, { shape: [96, 1], bytes: new Uint8Array(rows.buffer) });
};
const kept = (() => {
  const editor = new Editor(fp8);
  scales(editor);
  return editor.copy;
})();
const keptRows = (() => {
  const editor = new Editor(kept);
  perRow(editor);
  return editor.copy;
})();

const KEPT: Readonly<Record<string, Fault>> = {
  "a weight's scale": { layer: 1, blames: UP1, plant: rescale(UP1, (s) => s * 1.01) },
  "a weight's code": bit(1, UP1, 5),
  "an activation's scale": {
    layer: 2,
    blames: "input_scale",
    plant: (e) => e.f32(at(2, "in_proj.input_scale"), (s) => s * 2),
  },
  "an activation's scale lost": {
    layer: 2,
    blames: "input_scale",
    plant: (e) => e.drop(at(2, "in_proj.input_scale")),
  },
  "a cache's scale": {
    layer: 3,
    blames: "k_scale",
    plant: (e) => e.f32("backbone.layers.3.mixer.k_scale", (s) => s + 1),
  },
  "a cache's scale of another type": {
    layer: 3,
    plant: (e) => e.put("backbone.layers.3.mixer.k_scale", { dtype: "BF16", bytes: Uint8Array.of(0, 63) }),
  },
};

describe("kept FP8: scales are compared, those that nothing reads too", () => {
  it.each(Object.entries(KEPT))("%s", async (_, fault) => {
    await planted(kept, kept, fault, QUICK);
  });

  it("a scale of one row", async () => {
    const fault: Fault = { layer: 4, plant: (e) => e.f32(`${UP4}_scale`, (s, i) => (i === 3 ? s * 2 : s)) };
    const report = await planted(keptRows, keptRows, fault, { ...QUICK, verify: "bytes" });
    expect(metricsWith(report, "bytes", "recast").differences).toEqual([
      { role: "main.4.mlp.up", tensors: [UP4], message: expect.stringContaining("scale of row 3") },
    ]);
    expect(report.roots.a).not.toBe(report.roots.b);
  });

  it("scales of rows are compared, decoded and run", async () => {
    const [a, b] = [await opened(keptRows), await opened(keptRows)];
    expectClean(score, await verifyCheckpoints(a, b, QUICK), "same");
  });

  it("a recast may bring or lose scales that its config declares: they are named, not judged", async () => {
    const declared = new Editor(kept);
    const cast = [...fp8.tensors.keys()].filter((name) => fp8.tensors.has(`${name}_scale`));
    for (const name of cast) declared.add(name.replace(/weight$/, "input_scale"), "F32", [], oneF32(0.25));
    const { ignore } = declared.json("config.json").quantization_config as { ignore: readonly string[] };
    declared.config({
      quantization_config: { quant_method: "fp8", activation_scheme: "static", ignored_layers: ignore },
    });
    const report = await verifyCheckpoints(await opened(tiny), await opened(declared.copy), QUICK);
    expectClean(score, report, "within");
    expect(report.findings.join()).toMatch(/input_scale and \d+ more are only in the second checkpoint/);
    const own = await verifyCheckpoints(await opened(tiny), await opened(kept), QUICK, true);
    expect(own).toMatchObject({ verdict: "different", firstDivergence: { layer: 3 } });
  });
});

const REFUSED: Readonly<Record<string, readonly [ErrorCode, (e: Editor) => void]>> = {
  "no scale": ["SCALE_INVALID", (e) => e.drop(`${UP1}_scale`)],
  "a negative scale": ["SCALE_INVALID", rescale(UP1, (s) => -s)],
  "a NaN scale": ["SCALE_INVALID", rescale(UP1, () => NaN)],
  "a scale of zero": ["SCALE_INVALID", rescale(UP1, () => 0)],
  "a scale without its weight's type": [
    "SCALE_INVALID",
    (e) => e.put(UP1, { dtype: "BF16", bytes: tiny.tensors.get(UP1)!.bytes }),
  ],
  "a tensor missing": ["TENSOR_MISSING", (e) => e.drop(norm(4))],
  "a tensor too many": ["TENSOR_UNKNOWN", (e) => e.add("stray.weight", "F32", [1], oneF32(1))],
  "a tensor of another shape": ["SHAPE_MISMATCH", (e) => e.put(norm(4), { shape: [8, 8] })],
  "another order of layers": ["TENSOR_MISSING", (e) => e.config({ hybrid_override_pattern: "M-M-*M*-M" })],
  "another vocabulary": ["SHAPE_MISMATCH", (e) => e.config({ vocab_size: 511 })],
};

describe("what is no checkpoint is refused, not compared", () => {
  it.each(Object.entries(REFUSED))("%s", async (_, [code, plant]) => {
    score.planted++;
    const editor = new Editor(fp8);
    plant(editor);
    const got = await codeOf(async () =>
      verifyCheckpoints(await opened(tiny), await opened(editor.copy), QUICK),
    );
    expect(got).toBe(code);
    score.caught++;
  });
});

const SETTINGS: Readonly<Record<string, (e: Editor) => void>> = {
  epsilon: (e) => e.config({ layer_norm_epsilon: 1e-6, rms_norm_eps: 1e-6 }),
  "limits of the time step": (e) => e.config({ time_step_limit: [0.001, 100] }),
  "groups of states": (e) => e.config({ n_groups: 1, ssm_state_size: 32 }),
  "heads of attention": (e) =>
    e.config({ num_attention_heads: 2, num_key_value_heads: 1, head_dim: 32, attention_head_dim: 32 }),
  "a bit of the tokenizer": (e) => {
    const bytes = Uint8Array.from(e.copy.files.get("tokenizer.json")!);
    bytes[100]! ^= 1;
    e.copy.files.set("tokenizer.json", bytes);
  },
};

describe("settings: what a model's behaviour depends on is different", () => {
  it.each(Object.entries(SETTINGS))("%s", async (_, plant) => {
    score.planted++;
    const editor = new Editor(tiny);
    plant(editor);
    const report = await verifyCheckpoints(await opened(tiny), await opened(editor.copy), QUICK);
    expect(report.verdict).toBe("different");
    expect(report.rungs[0]).toMatchObject({ rung: "cover", verdict: "different" });
    score.caught++;
  });

  it.each([
    ["experts a token", { num_experts_per_tok: 2 }],
    ["the routers' scale", { routed_scaling_factor: 1 }],
    ["normalisation of the choice", { norm_topk_prob: false }],
    ["groups that are kept", { topk_group: 2 }],
  ] as const)("routing: %s", async (_, change) => {
    score.planted++;
    const editor = new Editor(moe);
    editor.config(change);
    const options = { ...QUICK, verify: "bytes" } as const;
    const report = await verifyCheckpoints(await opened(moe), await opened(editor.copy), options);
    expect(report.verdict).toBe("different");
    score.caught++;
  });

  it("another pattern: the cover rung decides, and nothing else runs", async () => {
    score.planted++;
    const sharded = await copyOf(golden("sharded"));
    const report = await verifyCheckpoints(await opened(tiny), await opened(sharded), QUICK);
    expect(report).toMatchObject({ verdict: "different", backend: null, roots: { a: null, b: null } });
    expect(report.rungs.map(({ rung }) => rung)).toEqual(["cover"]);
    expect(report.firstDivergence).toMatchObject({ layer: -1, kind: "embedding" });
    const mixed = await verifyCheckpoints(await opened(tiny), await opened(moe), QUICK);
    expect(mixed.verdict).toBe("different");
    score.caught++;
  });
});

const EXPERTS: Readonly<Record<string, readonly [Copy, Fault]>> = {
  "two experts swapped": [
    moe,
    {
      layer: 1,
      plant: (e) => e.swap(at(1, "experts.0.up_proj.weight"), at(1, "experts.5.up_proj.weight")),
    },
  ],
  "two rows of the router swapped": [
    moe,
    { layer: 4, plant: (e) => e.swapRows(at(4, "gate.weight"), 0, 1, 1) },
  ],
  "a bit of the correction bias": [moe, bit(9, at(9, "gate.e_score_correction_bias"))],
  "a bit of the shared expert": [moe, bit(6, at(6, "shared_experts.down_proj.weight"))],
  "a bit of a latent projection": [latent, bit(1, at(1, "fc1_latent_proj.weight"))],
  "a bit of a prediction layer": [latent, bit(9, "mtp.layers.0.eh_proj.weight")],
  "a bit of a prediction layer's last norm": [latent, bit(10, "mtp.layers.1.final_layernorm.weight")],
};

describe("experts: a fault in a copy is different, at its layer", () => {
  it.each(Object.entries(EXPERTS))("%s", async (_, [golden, fault]) => {
    const report = await planted(golden, golden, fault, QUICK);
    expect(report.firstDivergence?.door).toMatch(/./);
  });
});

describe("no false alarm", () => {
  it("side files that mean nothing to the model are named, not judged", async () => {
    const editor = new Editor(tiny);
    editor.copy.files.set("generation_config.json", Buffer.from("{}"));
    for (const path of ["tokenizer.json", "chat_template.jinja"]) editor.copy.files.delete(path);
    editor.config({ use_cache: false, torch_dtype: "float32" });
    const report = await verifyCheckpoints(await opened(tiny), await opened(editor.copy), QUICK);
    expectClean(score, report, "same");
    expect(report.findings).toEqual([
      "chat_template.jinja is only in the first checkpoint",
      "config.json differs in torch_dtype, use_cache",
      "generation_config.json differs",
      "tokenizer.json is only in the first checkpoint",
      "config.json: it says float32, and most weights are BF16: engines compute in another type",
    ]);
  });
});
