/** What every family must do, by one suite, over random settings of each. */
import { describe, expect, it } from "vitest";
import { type Checkpoint, tensorKey } from "../../src/core/checkpoint.ts";
import { countOf, type Shape } from "../../src/core/dtype.ts";
import { countOfMove, cover, movesOf, shapeOf } from "../../src/core/layout.ts";
import type { Config, Feed, LayerKind, Stage, Use } from "../../src/families/define.ts";
import { families } from "../../src/families/index.ts";
import { matchRoles, modelOf } from "../../src/families/match.ts";
import { leavesOf, type Stored, storedBy } from "../../src/families/stored.ts";
import { memoryStore } from "../../src/io/memory.ts";
import { randomFrom } from "../random.ts";

type Random = (n: number) => number;

/** Random configs in each family's first dialect, widths all unlike. */
const CONFIGS: Readonly<Record<string, (random: Random) => Config>> = {
  "nemotron-h"(random) {
    const letters = (most: number) =>
      Array.from({ length: 1 + random(most) }, () => "M*-E"[random(4)]).join("");
    const few = () => 1 + random(3);
    const [kvHeads, groups] = [few(), few()];
    const mtp =
      random(2) === 0 ? {} : { num_nextn_predict_layers: few(), mtp_hybrid_override_pattern: letters(2) };
    return {
      model_type: "nemotron_h",
      hybrid_override_pattern: letters(6),
      hidden_size: 7 * few(),
      vocab_size: 31,
      intermediate_size: 11 * few(),
      num_attention_heads: kvHeads * few(),
      num_key_value_heads: kvHeads,
      head_dim: 5,
      mamba_num_heads: groups * few(),
      mamba_head_dim: 3,
      ssm_state_size: 13,
      n_groups: groups,
      conv_kernel: 4,
      n_routed_experts: few(),
      num_experts_per_tok: 2,
      moe_intermediate_size: 17,
      moe_shared_expert_intermediate_size: 19,
      ...(random(2) === 0 && { moe_latent_size: 6 }),
      ...mtp,
    };
  },
};

/** Which software's config record a dialect is tried with. */
const SOFTWARE: Readonly<Record<string, string>> = {
  hf: "hf",
  megatron: "bridge",
  "megatron-ranks": "megatron",
};

function checkpointOf(config: Config, dialect: string, stored: readonly Stored[]): Checkpoint {
  const tensors = stored.map(({ name, rank, layout }) => ({
    name,
    ...(rank !== undefined && { rank }),
    dtype: "BF16" as const,
    shape: shapeOf(layout),
    pieces: [],
  }));
  const store = memoryStore("none", new Map());
  return {
    format: "none",
    dialect,
    config,
    tensors,
    objects: [],
    sidecars: [],
    shards: [],
    recasts: [],
    store,
  };
}

/** Where `feeds` leave rows of [0, count) out, or take them twice. */
function untiled(spans: readonly { at: number; count: number }[], count?: number): string | null {
  let end = 0;
  for (const { at, count: size } of [...spans].sort((a, b) => a.at - b.at)) {
    if (at !== end) return `${at} follows ${end}`;
    end += size;
  }
  return count === undefined || end === count ? null : `ends at ${end} of ${count}`;
}

describe.each(families)("$id", (family) => {
  const configs = Array.from({ length: 60 }, (_, seed) => CONFIGS[family.id]!(randomFrom(seed)));
  const dialect = family.dialects[0]!;
  const models = configs.map((config) => ({
    config,
    model: modelOf(checkpointOf(config, dialect.id, []), families),
  }));

  it("claims its configs, and is the only one", () => {
    for (const config of configs) expect(families.filter((one) => one.claims(config))).toEqual([family]);
    expect(family.claims({ model_type: "llama" })).toBe(false);
    expect(family.claims({})).toBe(false);
  });

  it("each role is there once, in execution order", () => {
    for (const { model } of models) {
      const roles = [...model.roles.values()];
      const places = roles.map(({ layer }) => (layer === null ? null : `${layer.stack} ${layer.index}`));
      const runs = places.filter((place, i) => place !== null && place !== places[i - 1]);
      expect(runs).toEqual(model.layers.map(({ stack, index }) => `${stack} ${index}`));
      expect(new Set(roles.map(({ key }) => key)).size).toBe(roles.length);
      expect(roles[0]!.spec.kind).toBe("embedding");
      for (const { shape } of roles) expect(countOf(shape)).toBeGreaterThan(0);
      // within a layer, as the table says
      const table = new Map(family.roles.map(({ role }, i) => [role, i]));
      const kindOf = (i: number) => table.get(roles[i]!.spec.role)!;
      for (let i = 1; i < roles.length; i++) {
        if (places[i] !== null && places[i] === places[i - 1])
          expect(kindOf(i)).toBeGreaterThanOrEqual(kindOf(i - 1));
      }
    }
  });

  describe.each(family.dialects)("in the dialect $id", (own) => {
    const { id } = own;
    /** The model's config as this dialect's software has it. */
    const configIn = ({ config, model }: (typeof models)[number]): Config => {
      if (own === dialect) return config;
      const { settings, asides } = model;
      const shards = own.cut(model, { tp: 1, pp: 1 });
      return own.config({ settings, asides, software: SOFTWARE[id]!, shards, dtype: "bfloat16" }).config;
    };

    it("stored tensors and roles are two cuts of the same elements", () => {
      for (const { config: first, model } of models) {
        const config = configIn({ config: first, model });
        const stored = storedBy(model, own);
        const names = stored.flatMap(({ name, also }) => [name, ...also]);
        expect(new Set(names).size, "a name twice").toBe(names.length);
        for (const { name } of stored) expect(name).not.toMatch(/[{}]/);
        for (const { name, layout } of stored) {
          const moves = movesOf(layout);
          expect(cover(moves, countOf(shapeOf(layout))), name).toMatchObject({ ok: true });
        }
        const drawn = stored.flatMap(({ layout }) => leavesOf(layout));
        expect(new Set(drawn)).toEqual(new Set(model.roles.keys()));
        // and back: `matchRoles` covers each role, or throws
        const { holds, origin } = matchRoles(checkpointOf(config, id, stored), families, new Set());
        expect([holds.size, origin.size]).toEqual([stored.length, model.roles.size]);
        const moved = stored
          .flatMap(({ layout }) => movesOf(layout))
          .reduce((sum, move) => sum + (move.of === null ? 0 : countOfMove(move)), 0);
        expect(moved).toBe([...model.roles.values()].reduce((sum, { shape }) => sum + countOf(shape), 0));
      }
    });

    it("a tensor too many or too few is refused by name", () => {
      const config = configIn(models[0]!);
      const stored = storedBy(models[0]!.model, own);
      const [first, ...rest] = stored;
      const match = (tensors: readonly Stored[]) => () =>
        matchRoles(checkpointOf(config, id, tensors), families, new Set());
      expect(match(rest)).toThrow(
        expect.objectContaining({ code: "TENSOR_MISSING", at: { tensor: tensorKey(first!) } }),
      );
      const extra = { ...first!, name: "extra", also: [] };
      expect(match([...stored, extra])).toThrow(
        expect.objectContaining({ code: "TENSOR_UNKNOWN", at: { tensor: tensorKey(extra) } }),
      );
    });
  });

  describe.each(family.forward.natives)("run natively in $dialect", (native) => {
    const runnable = (kind: LayerKind) => native.uses[kind].length > 0;
    const shapesOf = (model: (typeof models)[number]["model"]) =>
      new Map(storedBy(model, model.dialect).map(({ name, layout }) => [name, shapeOf(layout)]));

    /** Each stored tensor's rows go somewhere once; each stream and parameter of the stages is fed once. */
    function expectFed(
      stages: readonly Stage[],
      uses: readonly Use[],
      shapes: ReadonlyMap<string, Shape>,
      d: Readonly<Record<string, number>>,
    ) {
      const widths = family.forward.streams(d);
      const fed = new Map<string, Feed[]>();
      for (const { name, feeds } of uses) {
        const spans = feeds(d);
        expect(
          untiled(
            spans.map(({ from, count }) => ({ at: from, count })),
            shapes.get(name)![0]!,
          ),
          name,
        ).toBeNull();
        for (const feed of spans) fed.set(feed.to, [...(fed.get(feed.to) ?? []), feed]);
      }
      const wanted = stages.flatMap((stage) => (stage.op === "linear" ? stage.to : stage.parameters));
      expect([...fed.keys()].sort()).toEqual([...wanted].sort());
      for (const [to, feeds] of fed) expect(untiled(feeds, widths[to]), to).toBeNull();
    }

    it("every stored tensor of a layer is used, and every stream and parameter fed, once", () => {
      const seen = new Set<LayerKind>();
      for (const { model } of models) {
        const shapes = shapesOf(model);
        for (const { stack, kind, index } of model.layers) {
          if (stack !== "main" || !runnable(kind)) continue;
          seen.add(kind);
          const prefix = native.prefix.replace("{layer}", String(index));
          const own = [...shapes]
            .filter(([name]) => name.startsWith(prefix))
            .map(([name, shape]) => [name.slice(prefix.length), shape] as const);
          expect(native.uses[kind].map(({ name }) => name).sort()).toEqual(own.map(([name]) => name).sort());
          expectFed(family.forward.block(kind), native.uses[kind], new Map(own), model.dims);
        }
        const outside = [...shapes].filter(([name]) => !/layers\.\d+\./.test(name));
        const used = [native.embedding[0]!, ...native.uses.head.map(({ name }) => name)];
        expect(used.sort()).toEqual(outside.map(([name]) => name).sort());
        expectFed(family.forward.head, native.uses.head, new Map(outside), model.dims);
      }
      expect(seen.size).toBeGreaterThan(0);
      for (const kind of ["mamba", "attention", "mlp", "moe"] as const) {
        if (!runnable(kind))
          expect(() => family.forward.block(kind)).toThrow(expect.objectContaining({ code: "UNSUPPORTED" }));
      }
    });

    it("a stage reads what an earlier one made, and the last makes what the block gives", () => {
      const blocks = (["mamba", "attention", "mlp"] as const)
        .filter(runnable)
        .map((kind) => [family.forward.block(kind), "out"] as const);
      for (const [stages, gives] of [...blocks, [family.forward.head, "logits"] as const]) {
        const made = new Set(["residual"]);
        for (const stage of stages) {
          for (const from of [stage.from].flat()) expect(made, from).toContain(from);
          for (const to of [stage.to].flat()) {
            expect(made, to).not.toContain(to);
            made.add(to);
          }
        }
        expect([stages.at(-1)!.to].flat()).toEqual([gives]);
      }
    });
  });
});
