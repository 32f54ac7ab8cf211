/** Searches for a recipe and for a shape in the HTML report. */
import { expect, it } from "vitest";
import type { RecipeSearch, ShapeSearch } from "../../src/index.ts";
import { recipeSection, shapeSearchSection } from "../../src/report/html-search.ts";

const point = (cast: readonly number[], bytes: number, klMean: number) => ({
  ...{ cast, bytes, bitsPerWeight: bytes / 100, klMean, klP99: 4 * klMean, top1: 1 },
});

const search: RecipeSearch = {
  recipe: {
    id: "auto",
    keep_ends: 0,
    cast: ["mlp.*"],
    keep: [],
    keep_layers: [0],
    keep_mamba_before_attention: false,
  },
  ...{ tokens: 64, readings: 2, backend: "wasm", device: "test", limits: { klMean: 0.01 } },
  layers: [
    { layer: 1, kind: "mlp", bytesSaved: 300, klMean: 0.002 },
    { layer: 0, kind: "mamba", bytesSaved: 400, klMean: 0.04 },
  ],
  points: [point([], 1600, 0), point([1], 1300, 0.002), point([0, 1], 900, 0.05)],
  chosen: 1,
};

it("draws a dot for each point, the limit, and the chosen point", () => {
  const { markup } = recipeSection(search);
  expect(markup).toContain("1 of 2 layers are cast: 13.000 bits a weight at a mean KL divergence of 0.002");
  expect(markup.match(/<circle class="dot"/g)).toHaveLength(3);
  const centres = [...markup.matchAll(/<circle class="dot" cx="([\d.]+)" cy="([\d.]+)"/g)].map(([, x, y]) => [
    Number(x),
    Number(y),
  ]);
  const [, mark] = /<line class="limit" x1="([\d.]+)" x2="\1"/.exec(markup)!;
  expect(Number(mark)).toBe(centres[1]![0]);
  const limit = Number(/<line class="limit" x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="\1"/.exec(markup)![1]);
  expect(centres[1]![1]).toBeGreaterThan(limit); // below the limit: a larger y
  expect(centres[2]![1]).toBeLessThan(limit);
  expect(markup).toMatch(/<td[^>]*>mamba<\/td>.*kept/);
});

const shape = (ffn: number, memory: number | null, klMean: number): ShapeSearch["measured"][number] => ({
  ...{ counts: { attention: 2, mamba: 7, mlp: 6, moe: 0 }, ffn, parameters: 1000 * ffn, memory },
  ...{ klMean, top1: 0.75, nll: 4.25, accuracy: 0.1 },
});

it.each([["memory"], ["parameters, millions"]])(
  "draws a dot for each shape by %s, and marks the best",
  (axis) => {
    const memory = (bytes: number) => (axis === "memory" ? bytes : null);
    // the best first, which is neither the smallest nor the largest
    const measured = [
      shape(112, memory(2 << 20), 0.01),
      shape(96, memory(1 << 20), 0.1),
      shape(128, memory(3 << 20), 0.02),
    ];
    const { markup } = shapeSearchSection({ enumerated: 1243, fits: 44, measured });
    expect(markup).toContain("44 of 1,243 shapes are within the limits, and 3 were measured");
    expect(markup).toContain(
      "Chosen: attention 2, mamba 7, mlp 6, ffn 112, with a mean KL divergence of 0.01.",
    );
    expect(markup).toContain(axis);
    const centres = [...markup.matchAll(/<circle class="local" cx="([\d.]+)" cy="([\d.]+)"/g)].map(
      ([, x, y]) => [x, Number(y)],
    );
    expect(centres).toHaveLength(3);
    const [, mark] = /<line class="limit" x1="([\d.]+)" x2="\1"/.exec(markup)!;
    expect(mark).toBe(centres[1]![0]); // by size, the chosen shape is the second
    expect(centres[1]![1]).toBeGreaterThan(Number(centres[0]![1])); // less divergence: a larger y
    expect(markup).toMatch(/ffn 112.*112,000.*75 %.*10 %/);
  },
);
