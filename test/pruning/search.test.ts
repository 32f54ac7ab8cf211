/** The search: what it measures is likely to hold the best shape, and of what it measures it chooses the best. */
import { describe, expect, it } from "vitest";
import { mainLayers } from "../../src/families/model.ts";
import { SHAPE_RANKS } from "../../src/pruning/options.ts";
import { type EstimateScores, estimatorOf } from "../../src/pruning/search/estimate.ts";
import { likelyShapes, searchShape } from "../../src/pruning/search/search.ts";
import { parseBudget } from "../../src/pruning/sizes/budget.ts";
import { fittingShapes, type SizedShape, type SizeLimits } from "../../src/pruning/sizes/candidates.ts";
import { parseGrid } from "../../src/pruning/sizes/grid.ts";
import type { PrunedShape } from "../../src/pruning/sizes/shape.ts";
import {
  cutOf,
  heldout,
  parentModel,
  type RecordedCandidate,
  recorded,
  recordedScores,
} from "../support/measured-shapes.ts";

const WASM = { backend: "wasm", threads: 1 } as const;
const model = await parentModel();
const scores = await recordedScores();
const GRID = parseGrid("attention=1..3,mamba=6..8,mlp=6..8,ffn=96..128/4");
const MLPS = [1, 3, 6, 8, 11, 13, 16, 18];
const estimates: EstimateScores = {
  ranking: scores("layer.mse"),
  loss: scores("layer.kl"),
  channels: new Map(MLPS.map((layer) => [layer, scores(`ffn.contribution.${layer}`)])),
};
const estimate = estimatorOf(mainLayers(model), estimates);

type Counts = Pick<RecordedCandidate, "attention" | "mamba" | "mlp" | "ffn">;
const countsOf = ({ counts, ffn }: Pick<PrunedShape, "counts" | "ffn">): Counts => ({
  ...{ attention: counts.attention!, mamba: counts.mamba!, mlp: counts.mlp! },
  ffn,
});
const recordOf = (shape: Pick<PrunedShape, "counts" | "ffn">) => {
  const { attention, mamba, mlp, ffn } = countsOf(shape);
  return recorded.candidates.find(
    (one) => one.attention === attention && one.mamba === mamba && one.mlp === mlp && one.ffn === ffn,
  )!;
};

const LIMITS: readonly (readonly [string, SizeLimits, RecordedCandidate])[] = recorded.answers.flatMap(
  ({ memory, best, parameters, best_parameters }) => {
    const text = `memory=${memory}B,weights=fp4,kv=fp8,state=bf16,context=1K`;
    return [
      [text, { budget: parseBudget(text) }, best[0]!] as const,
      [`${parameters} parameters`, { parameters }, best_parameters[0]!] as const,
    ];
  },
);

const request = (limits: SizeLimits) => ({
  fitting: fittingShapes(model, limits, GRID),
  scores: estimates,
  cutOf: (shape: PrunedShape) => cutOf(countsOf(shape), scores),
  prompts: heldout,
});

describe("the estimate", () => {
  it("of a shape that keeps all channels is the sum of single layers", () => {
    const losses = scores("layer.kl");
    for (const { counts, ffn } of [{ counts: { attention: 2, mamba: 8, mlp: 7, moe: 0 }, ffn: 128 }]) {
      const dropped = [15, 13]; // the least attention layer and the least MLP by mse
      const sum = dropped.reduce((total, layer) => total + losses[layer]!, 0);
      expect(estimate({ counts, ffn, mambaHeads: 8, heads: 4, hidden: 64 })).toBeCloseTo(sum, 12);
    }
  });

  it("of equal scores drops the layer with the higher index, as the selection does", () => {
    const equal = estimatorOf(mainLayers(model), {
      ranking: new Array(19).fill(1),
      loss: [...Array(19).keys()],
      channels: new Map(),
    });
    const shape = { ffn: 128, mambaHeads: 8, heads: 4, hidden: 64 };
    expect(equal({ ...shape, counts: { attention: 2, mamba: 8, mlp: 7, moe: 0 } })).toBe(15 + 18);
  });

  it("ranks the 243 measured shapes nearly as their measured divergence", () => {
    const { fitting } = fittingShapes(model, { parameters: 1e9 }, GRID);
    const rankOf = (values: readonly number[]) => {
      const sorted = [...values].sort((a, b) => a - b);
      return values.map((value) => sorted.indexOf(value));
    };
    const a = rankOf(fitting.map(({ shape }) => estimate(shape)));
    const b = rankOf(fitting.map(({ shape }) => recordOf(shape).klMean));
    const distance = a.reduce((sum, rank, i) => sum + (rank - b[i]!) ** 2, 0);
    expect(1 - (6 * distance) / (a.length * (a.length ** 2 - 1))).toBeGreaterThan(0.95);
  });

  it.each(LIMITS)("within %s the best shape is among the first 8", (_, limits, best) => {
    const { fitting } = fittingShapes(model, limits, GRID);
    const first = likelyShapes(fitting, estimate).slice(0, 8);
    expect(Math.min(...first.map(({ shape }) => recordOf(shape).klMean))).toBe(best.klMean);
  });

  it("of equal estimates the larger shape comes first", () => {
    const sized = (parameters: number) => ({ parameters }) as SizedShape;
    expect(likelyShapes([sized(1), sized(3), sized(2)], () => 0).map(({ parameters }) => parameters)).toEqual(
      [3, 2, 1],
    );
  });
});

const TIGHT = LIMITS.at(-1)!; // 44 shapes fit

it("measures 32 shapes and chooses the best that there is", async () => {
  const { shape, damage, search, cut, readings } = await searchShape(model, request(TIGHT[1]), WASM);
  const best = TIGHT[2];
  expect(countsOf(shape)).toEqual(countsOf(search.measured[0]!));
  expect(recordOf(shape)).toEqual(best);
  expect(damage.klMean).toBe(search.measured[0]!.klMean);
  expect(cut).toEqual(cutOf(countsOf(shape), scores));
  expect(search).toMatchObject({ enumerated: 243, fits: 44 });
  expect(search.measured).toHaveLength(32);
  expect(readings).toBe(1);
  const order = search.measured.map(({ klMean }) => klMean);
  expect(order).toEqual([...order].sort((a, b) => a - b));
  for (const one of search.measured) {
    const { parameters, klMean, top1, nll, accuracy } = recordOf(one);
    expect(one).toMatchObject({ parameters, memory: null });
    expect([one.klMean, one.top1, one.nll, one.accuracy].map((value) => value.toFixed(4))).toEqual(
      [klMean, top1, nll, accuracy].map((value) => value.toFixed(4)),
    );
  }
});

it.each(SHAPE_RANKS)("by %s the first is the best", async (rank) => {
  const found = await searchShape(model, { ...request(LIMITS[0]![1]), candidates: 6, rank }, WASM);
  const { measured } = found.search;
  const of = { kl: "klMean", agreement: "top1", accuracy: "accuracy", nll: "nll" } as const;
  const values = measured.map((one) => one[of[rank]]);
  const sign = rank === "kl" || rank === "nll" ? 1 : -1;
  expect(measured).toHaveLength(6);
  expect(values).toEqual([...values].sort((a, b) => sign * (a - b)));
  expect(new Set(values).size).toBeGreaterThan(1);
  expect(measured[0]!.memory).toBe(recordOf(found.shape).memory);
});

it.each([0, -1, 1.5, Number.NaN])("refuses to measure %d candidates", async (candidates) => {
  const none = searchShape(model, { ...request(TIGHT[1]), candidates }, WASM);
  await expect(none).rejects.toMatchObject({ code: "USAGE", exit: 2 });
});
