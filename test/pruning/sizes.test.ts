/** Sizes of shapes: parameters, memory, and the candidates within a budget, against published models and recorded sums. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { loadModel } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { countOf } from "../../src/core/dtype.ts";
import type { RecognisedModel } from "../../src/families/model.ts";
import { parseBudget } from "../../src/pruning/sizes/budget.ts";
import { fittingShapes, refuseExceeding, sizedShape } from "../../src/pruning/sizes/candidates.ts";
import { gridAxes, parseGrid } from "../../src/pruning/sizes/grid.ts";
import { layerCosts } from "../../src/pruning/sizes/layer-costs.ts";
import { type Serving, servingMemory } from "../../src/pruning/sizes/memory.ts";
import { type PrunedShape, wholeShape } from "../../src/pruning/sizes/shape.ts";
import { familyGolden, golden } from "../support/goldens.ts";
import { publishedModel } from "../support/published-shapes.ts";

const GIB = 2 ** 30;
const parametersOf = (model: RecognisedModel, of: PrunedShape) => sizedShape(model, of, {}).parameters;
const memoryOf = (model: RecognisedModel, of: PrunedShape, serving: Serving) =>
  servingMemory(layerCosts(model, of), of, serving);
const minipuzzle = (name: string) => new URL(`../../fixtures/minipuzzle/${name}`, import.meta.url).pathname;
const BUDGET = parseBudget("memory=31.7GiB,weights=fp4,kv=fp8,state=bf16,context=1M,batch=1");
const whole = publishedModel("56B");
const shape = (attention: number, mamba: number, mlp: number, ffn: number): PrunedShape => ({
  ...wholeShape(whole),
  counts: { mamba, attention, mlp, moe: 0 },
  ffn,
});

/** The sum of facts that other people publish: not the roles of this program. */
function formula(
  hidden: number,
  ffn: number,
  heads: number,
  mambaHeads: number,
  state: number,
  counts: PrunedShape["counts"],
) {
  const [di, gs, headDim, kv, taps, vocab] = [mambaHeads * 64, 8 * state, 128, 8, 4, 131072];
  const cd = di + 2 * gs;
  const mamba =
    (di + cd + mambaHeads) * hidden + cd * (taps + 1) + 3 * mambaHeads + di + hidden * di + hidden;
  const attention = 2 * heads * headDim * hidden + 2 * kv * headDim * hidden + hidden;
  const mlp = 2 * ffn * hidden + hidden;
  const rest = 2 * vocab * hidden + hidden;
  return counts.mamba! * mamba + counts.attention! * attention + counts.mlp! * mlp + rest;
}

describe("parameters", () => {
  it.each([
    ["4B", 4.489e9, formula(3072, 12288, 32, 112, 128, { mamba: 24, attention: 4, mlp: 24 })],
    ["8B", 8.101e9, formula(4096, 21504, 32, 128, 128, { mamba: 24, attention: 4, mlp: 24 })],
    ["47B", 46.792e9, formula(8192, 30720, 64, 256, 256, { mamba: 45, attention: 5, mlp: 48 })],
    ["56B", 56.324e9, formula(8192, 32768, 64, 256, 256, { mamba: 54, attention: 10, mlp: 54 })],
  ] as const)("of %s are those of the formula", (name, published, sum) => {
    const model = publishedModel(name);
    const parameters = parametersOf(model, wholeShape(model));
    expect(parameters).toBe(sum);
    expect(Math.abs(parameters / published - 1)).toBeLessThan(2e-4);
  });

  it.each([
    golden("tiny"),
    golden("moe"),
    golden("latent-moe"),
    golden("megatron-tp2"),
    familyGolden("qwen3"),
    familyGolden("qwen2"),
  ])("of %s are those of its roles", async (address) => {
    const model = await loadModel(await openCheckpoint(address));
    const roles = [...model.roles.values()].filter(({ spec }) => !(model.tied && spec.tiedTo));
    const sum = roles.reduce((total, role) => total + countOf(role.shape), 0);
    expect(parametersOf(model, wholeShape(model))).toBe(sum);
  });

  it("of a narrower 56B are those of 47B", () => {
    const model = publishedModel("47B");
    expect(parametersOf(whole, wholeShape(model))).toBe(parametersOf(model, wholeShape(model)));
  });
});

describe("memory under the published budget", () => {
  it("47B takes 31.682 GiB, and 56B 45.73", () => {
    const of = (name: "47B" | "56B") => memoryOf(whole, wholeShape(publishedModel(name)), BUDGET);
    expect((of("47B").total / GIB).toFixed(3)).toBe("31.682");
    const { weights, kv, state, total } = of("56B");
    expect([weights, kv, state, total].map((bytes) => (bytes / GIB).toFixed(2))).toEqual([
      ...["26.23", "19.07", "0.43", "45.73"],
    ]);
  });

  it("44 Mamba and 49 MLP layers take 31.705 GiB and are refused", () => {
    const sized = sizedShape(whole, shape(5, 44, 49, 30720), { budget: BUDGET });
    expect(() => refuseExceeding(sized, { budget: BUDGET })).toThrow(
      "31.705 GiB, and 31.700 GiB are allowed",
    );
    refuseExceeding(sizedShape(whole, shape(5, 45, 48, 30720), { budget: BUDGET }), { budget: BUDGET });
  });

  it("8,246 of 17,640 candidates fit; 187 cannot be enlarged, 439 are above 31.2 GiB", () => {
    const grid = parseGrid("attention=1..10,mamba=41..54,mlp=41..54,ffn=24576..32768/1024");
    const { enumerated, fitting } = fittingShapes(whole, { budget: BUDGET }, grid);
    expect([enumerated, fitting.length]).toEqual([17640, 8246]);
    expect(fittingShapes(whole, { budget: BUDGET })).toEqual({ enumerated, fitting }); // the default grid
    expect(fitting.filter(({ memory }) => memory!.total > 31.2 * GIB)).toHaveLength(439);
    const key = ({ counts, ffn }: PrunedShape) => [counts.attention, counts.mamba, counts.mlp, ffn].join();
    const known = new Set(fitting.map((one) => key(one.shape)));
    const larger = ({ counts, ffn, ...rest }: PrunedShape): PrunedShape[] => [
      ...["attention", "mamba", "mlp"].map((kind) => ({
        ...{ ...rest, ffn },
        counts: { ...counts, [kind]: counts[kind]! + 1 },
      })),
      { ...rest, counts, ffn: ffn + 1024 },
    ];
    const stuck = fitting.filter((one) => !larger(one.shape).some((other) => known.has(key(other))));
    expect(stuck).toHaveLength(187);
  });

  it("each candidate of the small model has the recorded sizes", async () => {
    const model = await loadModel(await openCheckpoint(minipuzzle("parent")));
    const { candidates, parent_memory, answers } = JSON.parse(
      readFileSync(minipuzzle("parent.search.json"), "utf8"),
    );
    const serving = "weights=fp4,kv=fp8,state=bf16,context=1K,batch=1";
    const at = (bytes: number) => parseBudget(`memory=${bytes}B,${serving}`);
    const grid = parseGrid("attention=1..3,mamba=6..8,mlp=6..8,ffn=96..128/4");
    const { enumerated, fitting } = fittingShapes(model, { budget: at(1e9) }, grid);
    expect(enumerated).toBe(243);
    const rows = fitting.map(({ shape: { counts, ffn }, parameters, memory }) => {
      const { attention, mamba, mlp } = counts;
      return [attention, mamba, mlp, ffn, parameters, memory!.total].join();
    });
    type Row = Record<"attention" | "mamba" | "mlp" | "ffn" | "parameters" | "memory", number>;
    const recorded = candidates.map(({ attention, mamba, mlp, ffn, parameters, memory }: Row) =>
      [attention, mamba, mlp, ffn, parameters, memory].join(),
    );
    expect(rows.sort()).toEqual(recorded.sort());
    expect(memoryOf(model, wholeShape(model), at(1))).toEqual(parent_memory);
    for (const { memory, fits, parameters, fits_parameters } of answers) {
      expect(fittingShapes(model, { budget: at(memory) }, grid).fitting).toHaveLength(fits);
      expect(fittingShapes(model, { parameters }, grid).fitting).toHaveLength(fits_parameters);
    }
  });

  it("names the smallest candidate where none fits", () => {
    const least = () => fittingShapes(whole, { budget: { ...BUDGET, memory: GIB } });
    expect(least).toThrow(/attention 1.* ffn 24576, and it needs 1\d\.\d{3} GiB, and 1.000 GiB are allowed/);
    expect(() => fittingShapes(whole, { parameters: 1e9 })).toThrow(
      /ffn 24576, and it has 3\d,\d{3},\d{3},\d{3} parameters/,
    );
    for (const limits of [{ budget: { ...BUDGET, memory: GIB } }, { parameters: 1 }])
      expect(() => fittingShapes(whole, limits)).toThrow(
        expect.objectContaining({ code: "PLAN_IMPOSSIBLE", exit: 2 }),
      );
  });
});

describe("budgets", () => {
  const memory = (text: string) => parseBudget(`memory=${text}`).memory;
  it("units are decimal or binary", () => {
    expect(memory("31.7GiB")).toBe(Math.floor(31.7 * GIB));
    expect([memory("5GB"), memory("2MB"), memory("3KB"), memory("7B")]).toEqual([5e9, 2e6, 3e3, 7]);
    expect([memory("2MiB"), memory("1KiB")]).toEqual([2 << 20, 1024]);
    const counts = (context: string) => parseBudget(`memory=1B,context=${context}`).context;
    expect(["8192", "1M", "128Ki", "1.5K", "2Mi"].map(counts)).toEqual([8192, 1e6, 131072, 1500, 2 << 20]);
  });

  it("only the memory is required", () => {
    expect(parseBudget("memory=24GiB")).toEqual({
      ...{ memory: 24 * GIB, weights: "bf16", kv: "bf16", state: "bf16", context: 8192, batch: 1 },
    });
  });

  it("each number of a precision has its bytes", () => {
    const bytes = (weights: string) => {
      const budget = parseBudget(`memory=1B,weights=${weights}`);
      return memoryOf(whole, wholeShape(whole), budget).weights / parametersOf(whole, wholeShape(whole));
    };
    const precisions = ["f32", "bf16", "f16", "fp8", "fp4", "nvfp4", "mxfp4"];
    expect(precisions.map(bytes)).toEqual([4, 2, 2, 1, 0.5, 0.5625, 0.53125]);
  });

  it("twice the batch is twice the cache and the state", () => {
    const of = (batch: number) => memoryOf(whole, wholeShape(whole), { ...BUDGET, batch });
    expect(of(2)).toMatchObject({ weights: of(1).weights, kv: 2 * of(1).kv, state: 2 * of(1).state });
  });

  it.each([
    ["", "expected key=value"],
    ["weights=fp4", "has no memory"],
    ["memory=31.7", "a size with its unit"],
    ["memory=0GiB", "a size with its unit"],
    ["memory=1iB", "a size with its unit"],
    ["memory=-1GiB", "a size with its unit"],
    ["memory=1e9GiB", "a size with its unit"],
    ["memory=1GiB,memory=2GiB", "has memory twice"],
    ["memory=1GiB,weigths=fp4", "has the key weigths"],
    ["memory=1GiB,weights=int4", "one of f32, bf16"],
    ["memory=1GiB,weights=toString", "one of f32, bf16"],
    ["memory=1GiB,context=1.5", "a whole number above 0"],
    ["memory=1GiB,context=0", "a whole number above 0"],
    ["memory=1GiB,batch=x", "a whole number above 0"],
    ["memory=1GiB,", "expected key=value"],
  ])("refuses %j", (text, part) => {
    expect(() => parseBudget(text)).toThrow(
      expect.objectContaining({ code: "USAGE", message: expect.stringContaining(part) }),
    );
  });
});

describe("grids", () => {
  const axes = (text: string) => Object.fromEntries(gridAxes(whole, parseGrid(text)));

  it("an axis is a range, a range with steps, or a number", () => {
    expect(axes("attention=4,mamba=50..54,ffn=24576..32768/4096")).toMatchObject({
      ...{ attention: [4], mamba: [50, 51, 52, 53, 54], ffn: [24576, 28672, 32768] },
      ...{ moe: [0] },
    });
    expect(axes("mamba=50..53/2").mamba).toEqual([50, 52]);
  });

  it.each([
    ["attention=3..1", "with a not above b"],
    ["attention=1..3/0", "with a not above b"],
    ["attention=1-3", "with a not above b"],
    ["heads=4", "its keys are attention"],
    ["attention=1,attention=2", "has attention twice"],
  ])("refuses %j", (text, part) => {
    expect(() => parseGrid(text)).toThrow(
      expect.objectContaining({ code: "USAGE", message: expect.stringContaining(part) }),
    );
  });

  it.each([
    ["attention=1..11", "the model has 10 of these layers"],
    ["moe=1", "the model has 0 of these layers"],
    ["ffn=32768..32769", "MLPs of 32768 channels"],
    ["ffn=0..10", "MLPs of 32768 channels"],
    ["ffn=1..32768,mamba=0..54", "at most 1000000"],
  ])("refuses %j for this model", (text, part) => {
    expect(() => axes(text)).toThrow(
      expect.objectContaining({ code: "USAGE", message: expect.stringContaining(part) }),
    );
  });

  it("a shape keeps a layer", () => {
    const none = "attention=0,mamba=0,mlp=0..1,ffn=32768";
    expect(fittingShapes(whole, { parameters: 1e12 }, parseGrid(none)).fitting).toHaveLength(1);
  });
});
