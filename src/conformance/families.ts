/** What every family must do, over random configs. Call it in a test file of vitest. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { convert } from "../api/convert.ts";
import { type Checkpoint, tensorKey } from "../core/checkpoint.ts";
import { countOf, type Shape } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { movesOf, shapeOf } from "../core/mapping/layout.ts";
import { countOfMove, findCoverFault } from "../core/mapping/moves.ts";
import type { Dialect } from "../families/dialect.ts";
import { type ExpectedTensor, leafRoles, tensorsWritten } from "../families/expand.ts";
import type { Family } from "../families/family.ts";
import type { OutputRows, Stage, Use } from "../families/forward.ts";
import { families as house } from "../families/index.ts";
import { matchRoles } from "../families/match.ts";
import { modelOf } from "../families/recognise.ts";
import type { Config, Dims } from "../families/structure.ts";
import { stageStreams } from "../inference/activations.ts";
import type { Plugin } from "../plugins/plugin.ts";
import { registryOf } from "../plugins/registry.ts";
import { memoryStore } from "./memory-store.ts";
import { randomFrom } from "./random.ts";
import { synthesize } from "./synthesize.ts";

export interface FamilyTrial {
  /** A config of the first dialect, of small random widths that are all unlike. `random(n)` is a whole number below n. */
  readonly config: (random: (n: number) => number) => Config;
  /** the software whose config record a dialect is tried with; default: the id of the dialect */
  readonly software?: Readonly<Record<string, string>>;
}

/** Number of random configs, and how many of them also run. */
const MODELS = 60;
const RUNS = 4;

function checkpointOf(config: Config, dialect: string, stored: readonly ExpectedTensor[]): Checkpoint {
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
    weightFiles: [],
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

/**
 * Reads random configs, lays out the tensors of each, and holds the rules of each dialect, and its table of native rows, to the
 * roles of the family. What the family computes is compared by `verify` with logits of other software.
 *
 * @param family one of this version, or one of a plug-in
 * @example
 * familyConformance(gatedMlp, { config: (random) => ({ model_type: "gated_mlp", hidden_size: 8 * (1 + random(4)) }) });
 */
export function familyConformance(family: Family, { config: draw, software = {} }: FamilyTrial): void {
  const plugins: readonly Plugin[] = house.includes(family)
    ? []
    : [{ name: "conformance", families: [family] }];
  const { families } = registryOf({ plugins });
  describe(`family ${family.id}`, () => {
    const configs = Array.from({ length: MODELS }, (_, seed) => draw(randomFrom(seed)));
    const dialect = family.dialects[0]!;
    const models = configs.map((config) => ({
      config,
      model: modelOf(checkpointOf(config, dialect.id, []), families),
    }));

    it("claims its configs, and is the only one", () => {
      for (const config of configs) expect(families.filter((one) => one.claims(config))).toEqual([family]);
      expect(family.claims({ model_type: "no-such-model" })).toBe(false);
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

    it.runIf(dialect.id === "hf")(
      "runs: a conversion keeps the logits, and each deliberate fault is found",
      async () => {
        const work = mkdtempSync(join(tmpdir(), "isologit-"));
        onTestFinished(() => rmSync(work, { recursive: true, force: true }));
        for (const [seed, config] of configs.slice(0, RUNS).entries()) {
          const folder = join(work, String(seed));
          await synthesize(folder, { config, seed, maxShardBytes: Infinity, families });
          const how = { backend: "wasm", threads: 1, tokens: 8, plugins } as const;
          const { verification } = await convert(folder, `${folder}.isologit`, how);
          expect(verification, JSON.stringify(config)).toMatchObject({ verdict: "same", findings: [] });
        }
      },
    );

    /** The model's config as the software of a dialect has it. */
    const configIn = (own: Dialect, { config, model }: (typeof models)[number]): Config => {
      if (own === dialect) return config;
      const { settings, passthrough } = model;
      const shards = own.cut(model, { tp: 1, pp: 1 });
      return own.config({
        settings,
        passthrough,
        software: software[own.id] ?? own.id,
        parallelism: shards,
        dtype: "bfloat16",
      }).config;
    };

    /** The models that the software of a dialect has. */
    const modelsIn = (own: Dialect): typeof models =>
      models.flatMap(({ config: first, model }) => {
        try {
          return [{ config: configIn(own, { config: first, model }), model }];
        } catch (error) {
          if (error instanceof IsologitError && error.code === "PLAN_IMPOSSIBLE") return [];
          throw error;
        }
      });

    describe.each(family.dialects)("in the dialect $id", (own) => {
      const { id } = own;
      const known = modelsIn(own);

      it("stored tensors and roles are two cuts of the same elements", () => {
        expect(known.length, "the software has too few of the models").toBeGreaterThan(models.length / 4);
        for (const { config, model } of known) {
          const stored = tensorsWritten(model, own);
          const names = stored.flatMap(({ name, also }) => [name, ...also]);
          expect(new Set(names).size, "a name twice").toBe(names.length);
          for (const { name } of stored) expect(name).not.toMatch(/[{}]/);
          for (const { name, layout } of stored) {
            const moves = movesOf(layout);
            expect(findCoverFault(moves, countOf(shapeOf(layout))), name).toMatchObject({ ok: true });
          }
          const drawn = stored.flatMap(({ layout }) => leafRoles(layout));
          expect(new Set(drawn)).toEqual(new Set(model.roles.keys()));
          // and back: `matchRoles` covers each role, or throws
          const { holds, roleSources } = matchRoles(checkpointOf(config, id, stored), families, new Set());
          expect([holds.size, roleSources.size]).toEqual([stored.length, model.roles.size]);
          const moved = stored
            .flatMap(({ layout }) => movesOf(layout))
            .reduce((sum, move) => sum + (move.of === null ? 0 : countOfMove(move)), 0);
          expect(moved).toBe([...model.roles.values()].reduce((sum, { shape }) => sum + countOf(shape), 0));
        }
      });

      it("a tensor too many or too few is refused by name", () => {
        const { config, model } = known[0]!;
        const stored = tensorsWritten(model, own);
        const [first, ...rest] = stored;
        const match = (tensors: readonly ExpectedTensor[]) => () =>
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
      const { forward } = family;
      const stored = family.dialects.find(({ id }) => id === native.dialect)!;
      const known = modelsIn(stored);
      const shapesOf = (model: (typeof models)[number]["model"]) =>
        new Map(tensorsWritten(model, stored).map(({ name, layout }) => [name, shapeOf(layout)]));

      /** The uses that there are tensors for, by the first of their names that exists, those of experts once for each. */
      const present = (uses: readonly Use[], prefix: string, shapes: ReadonlyMap<string, Shape>, d: Dims) =>
        uses.flatMap((use) =>
          Array.from({ length: Math.max(1, forward.experts(d)) }, (_, expert) => {
            const names = [use.name, ...(use.also ?? [])].map(
              (name) => prefix + name.replace("{expert}", String(expert)),
            );
            const name = names.find((spelling) => shapes.has(spelling)) ?? names[0]!;
            return { name, feeds: use.outputs(d, { tp: 0, expert, shape: shapes.get(name) ?? [] }), expert };
          }).filter(({ name, feeds, expert }) => shapes.has(name) && (expert === 0 || isOfExperts(feeds))),
        );
      const isOfExperts = (feeds: readonly OutputRows[]) => feeds.some(({ to }) => to.startsWith("expert."));

      /** Each stored row goes somewhere once, padding apart; each stream and parameter is fed once. */
      function expectFed(
        wanted: readonly string[],
        used: ReturnType<typeof present>,
        shapes: ReadonlyMap<string, Shape>,
        d: Dims,
      ) {
        const widths: Readonly<Record<string, number>> = { ...forward.streams(d), vocabulary: d.vocab };
        const fed = new Map<string, OutputRows[]>();
        const taken = new Map<string, { at: number; count: number }[]>();
        for (const { name, feeds, expert } of used) {
          taken.set(name, [
            ...(taken.get(name) ?? []),
            ...feeds.map(({ from, count }) => ({ at: from, count })),
          ]);
          for (const feed of feeds) {
            const to = feed.to.startsWith("expert.") ? `${feed.to} ${expert}` : feed.to;
            fed.set(to, [...(fed.get(to) ?? []), feed]);
          }
        }
        for (const [name, rows] of taken) {
          const shape = shapes.get(name)!;
          const to = used.find((one) => one.name === name)!.feeds[0]!.to;
          const all = countOf(shape.length === 1 ? shape : shape.slice(0, -1));
          expect(untiled(rows, ["vocabulary", "logits"].includes(to) ? d.vocab : all), name).toBeNull();
        }
        expect([...fed.keys()].sort()).toEqual([...wanted].sort());
        for (const [to, feeds] of fed) expect(untiled(feeds, widths[to.split(" ")[0]!]), to).toBeNull();
      }

      const fedBy = (stages: readonly Stage[], d: Dims) =>
        stages.flatMap((stage) => {
          if (stage.op === "linear") return stage.to;
          if (stage.op === "kernel") return stage.parameters;
          if (stage.op !== "experts") return [];
          return Array.from({ length: forward.experts(d) }, (_, e) => `${stage.to} ${e}`);
        });

      it("every stored tensor is used, and every stream and parameter fed, once", () => {
        const seen = new Set<string>();
        for (const { model } of known) {
          const { dims } = model;
          const shapes = shapesOf(model);
          const unused = new Set(shapes.keys());
          const check = (wanted: readonly string[], uses: readonly Use[], prefix: string) => {
            const used = present(uses, prefix, shapes, dims);
            expectFed(wanted, used, shapes, dims);
            const names = new Set(used.map(({ name }) => name));
            // a tied head has no tensor of its own: it is the token table
            const shared = uses === native.uses.head ? native.uses.embedding[0]!.name : "";
            for (const name of names) expect(unused.delete(name) || name === shared, name).toBe(true);
          };
          for (const layer of model.layers) {
            const { stack, kind, index, inner, of, after = 0 } = layer;
            seen.add(kind);
            const filled = (prefix: string) =>
              prefix
                .replace("{layer}", String(index))
                .replace("{outer}", String(Math.floor(index / of)))
                .replace("{after}", String(after + Math.floor(index / of)))
                .replace("{inner}", String(inner));
            check(fedBy(forward.block(kind, dims), dims), native.uses[kind]!, filled(native.prefix[stack]!));
            if (stack === "main") continue;
            const step = filled(native.prefix.step!);
            if (inner === 0) check(fedBy(forward.mtp!.start, dims), native.uses.mtpStart!, step);
            if (inner === of - 1) check(fedBy(forward.mtp!.end, dims), native.uses.mtpEnd!, step);
          }
          const entry = forward.entry ?? [];
          check(["vocabulary", ...fedBy(entry, dims)], native.uses.embedding, "");
          check(fedBy(forward.head, dims), native.uses.head, "");
          expect([...unused]).toEqual([]);
        }
        const kinds = stored === dialect ? family.kinds : family.kinds.filter((kind) => seen.has(kind)); // some software lacks some kinds
        expect([...seen].sort()).toEqual([...kinds].sort());
      });

      it("a stage reads what an earlier one made, and all that is made is read, or is what the block gives", () => {
        for (const { model } of models.slice(0, 20)) {
          const blocks = family.kinds.map(
            (kind) => [forward.block(kind, model.dims), ["residual"], "out"] as const,
          );
          for (const [stages, given, gives] of [
            ...blocks,
            [forward.head, ["residual"], "logits"] as const,
            ...(forward.entry === undefined ? [] : [[forward.entry, ["residual"], "out"] as const]),
            ...(forward.mtp === undefined
              ? []
              : [[forward.mtp.start, ["residual", "words"], "out"] as const]),
          ]) {
            const made = new Set<string>(given);
            const unread = new Set<string>(given);
            for (const stage of stages) {
              const { reads, makes } = stageStreams(stage);
              for (const from of reads) {
                expect(made, from).toContain(from);
                unread.delete(from);
              }
              for (const to of makes) {
                expect(made, to).not.toContain(to);
                made.add(to);
                unread.add(to);
              }
            }
            expect(stageStreams(stages.at(-1)!).makes).toEqual([gives]);
            expect([...unread]).toEqual([gives]);
          }
        }
      });
    });
  });
}
