/** `--sizes`: the sizes of a shape, how many shapes are within limits, and the table of what a model needs as it is. */
import { expect, it } from "vitest";
import { parseBudget } from "../../src/pruning/sizes/budget.ts";
import { servingTable, sizesOf } from "../../src/pruning/sizes/report.ts";
import { wholeShape } from "../../src/pruning/sizes/shape.ts";
import { publishedModel } from "../support/published-shapes.ts";

const GIB = 2 ** 30;
const whole = publishedModel("56B");
const small = wholeShape(publishedModel("47B"));
const budget = parseBudget("memory=31.7GiB,weights=fp4,kv=fp8,state=bf16,context=1M");

it("of a shape: its parameters, and its memory beside the limit", () => {
  const { architecture, memory, search } = sizesOf(whole, small, { budget }, undefined);
  expect(architecture).toEqual({
    counts: { mamba: 45, attention: 5, mlp: 48, moe: 0 },
    ffn: 30720,
    parameters: 46_791_554_816,
  });
  expect((memory!.total / GIB).toFixed(3)).toBe("31.682");
  expect(memory).toMatchObject({ limit: budget.memory, weights: architecture.parameters / 2 });
  expect(search).toBeNull();
  expect(sizesOf(whole, small, {}, undefined)).toEqual({ architecture, memory: null, search: null });
});

it("of a shape beyond a limit: refused", () => {
  const large = { ...small, ffn: small.ffn + 1024 };
  expect(() => sizesOf(whole, large, { budget }, undefined)).toThrow(
    expect.objectContaining({ code: "PLAN_IMPOSSIBLE" }),
  );
  expect(() => sizesOf(whole, small, { parameters: 46e9 }, undefined)).toThrow("46,791,554,816 parameters");
});

it("without a shape: the model, and how many shapes are within the limits", () => {
  const { architecture, memory, search } = sizesOf(whole, null, { budget }, undefined);
  expect(architecture).toMatchObject({ ffn: 32768, counts: { attention: 10 } });
  expect((memory!.total / GIB).toFixed(2)).toBe("45.73");
  expect(search).toEqual({ enumerated: 17640, fits: 8246 });
  expect(sizesOf(whole, null, {}, undefined).search).toBeNull();
});

it("the table has each precision with each context", () => {
  const rows = servingTable(whole);
  expect(rows).toHaveLength(12);
  const row = rows.find(({ precisions, context }) => precisions.weights === "fp4" && context === 1e6)!;
  expect((row.total / GIB).toFixed(2)).toBe("45.73");
  const plain = rows.find(({ precisions, context }) => precisions.weights === "bf16" && context === 8192)!;
  expect(plain.weights).toBe(2 * 56_324_350_464);
});
