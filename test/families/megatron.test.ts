/** The dialects of Megatron against names and shapes that real software wrote, by hand, and over random cuts. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Checkpoint, type Rank, type Tensor, tensorKey } from "../../src/core/checkpoint.ts";
import { countOf, type DType, type Shape } from "../../src/core/dtype.ts";
import { parseJson } from "../../src/core/json.ts";
import { movesOf, shapeOf } from "../../src/core/mapping/layout.ts";
import { type Move, runsOf } from "../../src/core/mapping/moves.ts";
import type { Dialect } from "../../src/families/dialect.ts";
import { tensorsWritten } from "../../src/families/expand.ts";
import { families } from "../../src/families/index.ts";
import { matchRoles } from "../../src/families/match.ts";
import { modelOf } from "../../src/families/recognise.ts";
import type { Config } from "../../src/families/structure.ts";
import { memoryStore } from "../support/memory-store.ts";
import { randomFrom } from "../support/random.ts";

type Listed = Readonly<Record<string, readonly [DType, Shape]>>;

interface Golden {
  readonly dialect: string;
  readonly config: Config;
  readonly hf: Config;
  readonly tensors: Listed;
  readonly objects: readonly string[];
  readonly ranks: Readonly<Record<string, Listed>>;
}

function golden(name: string): Golden {
  const file = new URL(`../../fixtures/nemotron-h/megatron/${name}.json`, import.meta.url);
  return parseJson(readFileSync(file), { nonFinite: true }) as unknown as Golden; // as the fixture is written
}

const [family] = families;
const dialectOf = (id: string): Dialect => family!.dialects.find((one) => one.id === id)!;
const [dist, ranks] = [dialectOf("megatron"), dialectOf("megatron-ranks")];

function checkpoint(dialect: string, config: Config, tensors: readonly Tensor[]): Checkpoint {
  const store = memoryStore("none", new Map());
  return {
    ...{ format: "none", dialect, config, tensors, store },
    ...{ objects: [], sidecars: [], weightFiles: [], recasts: [] },
  };
}

const listed = (tensors: Listed, rank?: Rank): Tensor[] =>
  Object.entries(tensors).map(([name, [dtype, shape]]) => ({
    ...{ name, dtype, shape, pieces: [] },
    ...(rank !== undefined && { rank }),
  }));

const hfModel = (config: Config) => modelOf(checkpoint("hf", config, []), families);
const match = (source: Checkpoint) => matchRoles(source, families, new Set());

/** The two ranks of the golden of Megatron-LM. */
const tp2 = (): Checkpoint => {
  const { config, ranks: files } = golden("ranks-tp2");
  const tensors = Object.entries(files).flatMap(([tp, file]) =>
    listed(file, { tp: Number(tp), pp: 0, ep: 0 }),
  );
  return checkpoint("megatron-ranks", config, tensors);
};

describe.each([
  ["nemo2-tiny", 1],
  ["nemo2-tp2", 2],
  ["bridge-moe", 2],
] as const)("%s, as real software wrote it", (name, tp) => {
  const { config, hf, tensors, objects } = golden(name);
  const source = checkpoint("megatron", config, listed(tensors));

  it("names and shapes are those that the dialect gives", () => {
    const model = hfModel(hf);
    const stored = tensorsWritten(model, dist, dist.cut(model, { tp, pp: 1 }));
    expect(Object.fromEntries(stored.map((one) => [one.name, shapeOf(one.layout)]))).toEqual(
      Object.fromEntries(Object.entries(tensors).map(([key, [, shape]]) => [key, shape])),
    );
  });

  it("its config is its twin's", () => {
    const { settings, notes } = modelOf(source, families);
    expect(settings).toEqual(hfModel(hf).settings);
    expect(notes).toEqual([]);
  });

  it("every tensor has a role, and every role a tensor", () => {
    const { holds, roles, parallelism, dims } = match(source);
    expect(holds.size).toBe(Object.keys(tensors).length);
    expect(roles.size).toBe(hfModel(hf).roles.size);
    expect([parallelism.rows, dims.vocab]).toEqual([512, 500]);
  });

  it("the entries that its own loader wrote are among those written", () => {
    const states = objects.filter((one) => one.includes("_extra_state"));
    expect(dist.objects(hfModel(hf))).toEqual(expect.arrayContaining(states));
    expect(states.length).toBeGreaterThan(15);
  });

  it("what training left behind is counted, not moved", () => {
    const state: Tensor = {
      ...{
        name: "optimizer.state.exp_avg.module.decoder.layers.0.mixer.A_log",
        dtype: "F32",
        shape: [8],
        pieces: [],
      },
    };
    const trained = { ...source, tensors: [...source.tensors, state], objects: [...objects, "surprise"] };
    const counts = Object.fromEntries(match(trained).dropped.map(({ why, names }) => [why, names.length]));
    expect(counts["optimizer state"]).toBe(1);
    expect(counts["other pickled entries"]).toBe(1);
    expect(counts["extra state of modules"]).toBe(
      objects.filter((one) => one.includes("_extra_state")).length,
    );
  });
});

describe("ranks of Megatron-LM", () => {
  const { hf } = golden("nemo2-tiny");

  it("names and shapes are those that the dialect gives", () => {
    const model = hfModel(hf);
    const stored = tensorsWritten(model, ranks, ranks.cut(model, { tp: 2, pp: 1 }));
    const own = tp2().tensors.filter(({ name }) => !name.endsWith("_extra_state"));
    expect(Object.fromEntries(stored.map((one) => [tensorKey(one), shapeOf(one.layout)]))).toEqual(
      Object.fromEntries(own.map((one) => [tensorKey(one), one.shape])),
    );
  });

  it("the vocabulary that was told makes it its twin", () => {
    const { settings, notes, replicas, parallelism } = match({ ...tp2(), hints: { vocab: 500 } });
    expect(settings).toEqual(hfModel(hf).settings);
    expect(notes).toEqual([]);
    expect(parallelism).toMatchObject({ tp: 2, ep: 1, rows: 512 });
    // the norms before each of nine layers, and the last one
    expect(replicas.length).toBe(10);
  });

  it("untold, the padded rows stay, and that is said", () => {
    const { dims, notes } = match(tp2());
    expect(dims.vocab).toBe(512);
    expect(notes).toEqual([expect.stringContaining("`vocabSize`")]);
  });

  it("a like model tells it too", () => {
    expect(match({ ...tp2(), hints: { like: checkpoint("hf", hf, []) } }).dims.vocab).toBe(500);
  });

  it.each<[string, string, (tensors: readonly Tensor[]) => readonly Tensor[]]>([
    ["a rank's file", "SHAPE_MISMATCH", (all) => all.filter(({ rank }) => rank?.tp === 0)],
    [
      "a tensor of one rank",
      "TENSOR_MISSING",
      (all) =>
        all.filter((one) => tensorKey(one) !== "decoder.layers.3.self_attention.linear_qkv.weight@1.0.0"),
    ],
    [
      "a replica of one rank",
      "TENSOR_MISSING",
      (all) => all.filter((one) => tensorKey(one) !== "decoder.final_norm.weight@1.0.0"),
    ],
    [
      "the last layer",
      "TENSOR_MISSING",
      (all) => all.filter(({ name }) => !name.startsWith("decoder.layers.8.")),
    ],
  ])("without %s it is refused", (_, code, change) => {
    const source = tp2();
    expect(() => match({ ...source, tensors: change(source.tensors) })).toThrow(
      expect.objectContaining({ code }),
    );
  });
});

describe("what a config does not say", () => {
  const { hf, tensors } = golden("nemo2-tiny");
  const { config } = golden("nemo1-tiny");
  const without = (...keys: string[]) =>
    Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));
  const source = (changed: Config) => ({
    ...checkpoint("megatron", changed, listed(tensors)),
    hints: { vocab: 500 },
  });

  it("an old yaml's vocabulary is its padded rows", () => {
    expect(dist.vocabulary(config)).toBeUndefined();
    expect(match(source(config)).settings).toEqual(hfModel(hf).settings);
  });

  it("is seen in the tensors, and said", () => {
    const silent = without(
      "hybrid_override_pattern",
      "mamba_state_dim",
      "mamba_head_dim",
      "mamba_num_heads",
      "kv_channels",
    );
    const { settings, notes } = match(source(silent));
    expect(settings).toEqual(hfModel(hf).settings);
    expect(notes.map((note) => note.split(" ")[0]).sort()).toEqual([
      "kv_channels",
      "mamba_head_dim",
      "mamba_num_heads",
      "mamba_state_dim",
      "the",
    ]);
  });

  it("groups cannot be seen", () => {
    expect(() => match(source(without("mamba_num_groups", "mamba_ssm_ngroups")))).toThrow(
      expect.objectContaining({
        code: "CONFIG_INVALID",
        message: expect.stringContaining("mamba_num_groups"),
      }),
    );
  });

  it("a stock import names its class alone", () => {
    const _target_ = "nemo.collections.llm.gpt.model.ssm.NemotronHConfig56B";
    const { dims, layers } = modelOf(checkpoint("megatron", { _target_ }, []), families);
    expect(layers.length).toBe(118);
    expect(dims).toMatchObject({
      hidden: 8192,
      ffn: 32768,
      inner: 16384,
      state: 256,
      headDim: 128,
      vocab: 131072,
    });
  });

  it.each([
    ["another activation", { activation: "swiglu" }],
    ["a gate", { gated_linear_unit: true }],
    ["biases", { add_bias_linear: true }],
    ["rotary positions", { position_embedding_type: "rope" }],
    ["tied embeddings", { share_embeddings_and_output_weights: true }],
  ])("%s is refused", (_, change) => {
    expect(() => match(source({ ...config, ...change }))).toThrow(
      expect.objectContaining({ code: "UNSUPPORTED" }),
    );
  });

  it.each([
    ["layers that do not fit the pattern", { num_layers: 10 }],
    ["an unknown letter", { hybrid_override_pattern: "M-M*-M-*X" }],
  ])("%s is refused", (_, change) => {
    expect(() => match(source({ ...config, ...change }))).toThrow(
      expect.objectContaining({ code: "CONFIG_INVALID" }),
    );
  });

  it.each([
    ["sizes that the tensors do not have", { mamba_state_dim: 8 }, "SHAPE_MISMATCH"],
    [
      "more words than rows",
      { vocab_size: 513, nemo_version: undefined, target: undefined },
      "SHAPE_MISMATCH",
    ],
    ["another pattern", { hybrid_override_pattern: "M-M*-M-M*" }, "TENSOR_MISSING"],
  ])("%s are refused", (_, change, code) => {
    expect(() => match(source({ ...config, ...change }))).toThrow(expect.objectContaining({ code }));
  });

  it("cuts and prediction steps in a pattern are read", () => {
    const { settings } = modelOf(
      source({ ...config, hybrid_override_pattern: "M-M*|-M-*M/*-/*-" }),
      families,
    );
    expect(settings).toMatchObject({ pattern: "M-M*-M-*M", mtpPattern: "*-", mtpSteps: 2 });
  });
});

/** Elements of each tensor as moves give them, from elements by name. */
function moved(
  moves: readonly Move[],
  count: number,
  from: ReadonlyMap<string, readonly number[]>,
): number[] {
  const out = Array<number>(count).fill(0);
  for (const run of runsOf(moves, 0, count)) {
    for (let i = 0; i < run.count; i++)
      if (run.of !== null) out[run.to + i] = from.get(run.of)![run.from + i]!;
  }
  return out;
}

describe("by hand", () => {
  const base = golden("nemo2-tiny").hf;
  const rowsOf = (config: Config, name: string, tp: number, of: number) => {
    const model = hfModel(config);
    const stored = tensorsWritten(model, ranks, ranks.cut(model, { tp: of, pp: 1 }));
    const one = stored.find((s) => s.name === name && s.rank?.tp === tp)!;
    const columns = shapeOf(one.layout)[1]!;
    return [...runsOf(movesOf(one.layout), 0, countOf(shapeOf(one.layout)))].flatMap((run) =>
      Array.from(
        { length: run.count / columns },
        (_, i) => [run.of!.split(".").at(-1), run.from / columns + i] as const,
      ),
    );
  };

  it("queries, keys and values lie group by group", () => {
    const config = { ...base, num_attention_heads: 6, num_key_value_heads: 2, head_dim: 1 };
    const names = ["decoder.layers.3.self_attention.linear_qkv.weight"] as const;
    const fused = rowsOf(config, names[0], 0, 1).map(([role, row]) => `${role}${row}`);
    expect(fused).toEqual(["q0", "q1", "q2", "k0", "v0", "q3", "q4", "q5", "k1", "v1"]);
    const second = rowsOf(config, names[0], 1, 2).map(([role, row]) => `${role}${row}`);
    expect(second).toEqual(["q3", "q4", "q5", "k1", "v1"]);
  });

  it("Mamba's slab has each part's share, not a share of the whole", () => {
    const config = { ...base, mamba_num_heads: 2, mamba_head_dim: 2, n_groups: 2, ssm_state_size: 1 };
    // z 0-3, x 4-7, B 8-9, C 10-11, dt 12-13
    const rows = (tp: number) =>
      rowsOf(config, "decoder.layers.0.mixer.in_proj.weight", tp, 2).map(([, row]) => row);
    expect(rows(0)).toEqual([0, 1, 4, 5, 8, 10, 12]);
    expect(rows(1)).toEqual([2, 3, 6, 7, 9, 11, 13]);
  });
});

describe("any cut leads home", () => {
  /** Widths all unlike, each a multiple of what it is cut in. */
  const configFor = (random: (n: number) => number, tp: number): Config => {
    const few = () => 1 + random(3);
    const letters = (n: number) => Array.from({ length: n }, () => "M*-E"[random(4)]).join("");
    const [kv, groups] = [tp * few(), tp * few()];
    return {
      model_type: "nemotron_h",
      hybrid_override_pattern: letters(3 + random(4)),
      hidden_size: 3 * tp,
      vocab_size: 100 + random(200),
      intermediate_size: tp * few(),
      ...{ num_attention_heads: kv * few(), num_key_value_heads: kv, head_dim: 2 },
      ...{
        mamba_num_heads: groups * few(),
        mamba_head_dim: 3,
        ssm_state_size: 2,
        n_groups: groups,
        conv_kernel: 4,
      },
      ...{ n_routed_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: 2 * tp },
      moe_shared_expert_intermediate_size: 3 * tp,
      ...(random(2) === 0 && { moe_latent_size: 5 }),
      ...(random(2) === 0 && {
        num_nextn_predict_layers: 1 + random(2),
        mtp_hybrid_override_pattern: letters(2),
      }),
    };
  };

  it.each(Array.from({ length: 24 }, (_, seed) => seed))("seed %i", (seed) => {
    const random = randomFrom(seed);
    const dialect = [dist, ranks][seed % 2]!;
    const [tp, pp] = [1 + random(3), 1 + random(3)];
    const model = hfModel(configFor(random, tp));
    const whole = dialect.cut(model, { tp, pp });
    const ep = dialect.ranked ? [1, 2, 4][random(3)]! : 1;
    const shards = { ...whole, ep, expertTp: random(2) === 0 ? whole.expertTp : 1 };
    const software = dialect.ranked ? "megatron" : ["nemo2", "bridge"][random(2)]!;
    const { settings, passthrough } = model;
    const { config } = dialect.config({
      settings,
      passthrough,
      software,
      parallelism: shards,
      dtype: "bfloat16",
    });

    let next = 1;
    const elements = new Map(
      [...model.roles].map(
        ([key, { shape }]) => [key, Array.from({ length: countOf(shape) }, () => next++)] as const,
      ),
    );
    const stored = tensorsWritten(model, dialect, shards);
    const contents = new Map(
      stored.map((one) => [
        tensorKey(one),
        moved(movesOf(one.layout), countOf(shapeOf(one.layout)), elements),
      ]),
    );
    const tensors = stored.map(({ name, rank, layout }) => ({
      ...{ name, dtype: "BF16" as const, shape: shapeOf(layout), pieces: [] },
      ...(rank !== undefined && { rank }),
    }));
    const matched = match(checkpoint(dialect.id, config, tensors));
    expect(matched.settings).toEqual(settings);
    expect(matched.parallelism).toEqual(dialect.ranked ? shards : { ...shards, tp: 1 });
    expect(matched.notes).toEqual([]);
    for (const [key, { shape }] of model.roles) {
      expect(moved(matched.roleSources.get(key)!, countOf(shape), contents), key).toEqual(elements.get(key));
    }
    for (const { tensor, of } of matched.replicas) expect(contents.get(tensor)).toEqual(contents.get(of));
    // every element of the model is stored, and nothing else but zeros
    const all = new Set([...contents.values()].flat());
    expect(all.size - (all.has(0) ? 1 : 0)).toBe(next - 1);
  });
});
