/** How each engine matches the entries of a list with modules: the table of the facts, row by row. */
import { describe, expect, it } from "vitest";
import type { EngineId } from "../../src/quantization/engines/engine.ts";
import { ENGINES } from "../../src/quantization/engines/index.ts";
import { createExpressions, engineName } from "../../src/quantization/module-patterns.ts";

const Q3 = "backbone.layers.3.mixer.q_proj";
const LAYERS = ["backbone", "backbone.layers.1", "backbone.layers.3", "backbone.layers.10"];
const names = [Q3, "backbone.layers.1.mixer.in_proj", "backbone.layers.10.mixer.in_proj", "lm_head"];
const all = [...names, ...LAYERS, "backbone.layers.3.mixer"].flatMap((name) => [name, engineName(name)]);

function hits(engine: EngineId, method: string, entry: string, module: string): boolean {
  const { methods } = ENGINES.find(({ id }) => id === engine)!;
  return methods[method]!.findEntry([entry], createExpressions(all))(module) !== undefined;
}

type Row = readonly [method: string, entry: string, module: string, hit: readonly EngineId[]];

const IN1 = names[1]!;
const IN10 = names[2]!;
const CT = "compressed-tensors";

const ROWS: readonly Row[] = [
  [CT, Q3, Q3, ["vllm", "sglang", "trtllm", "transformers"]],
  [CT, "model.layers.3.mixer.q_proj", Q3, ["vllm", "sglang", "trtllm", "transformers"]],
  [CT, "q_proj", Q3, []],
  [CT, "backbone.layers.3", Q3, ["trtllm"]],
  [CT, "backbone.layers.3*", Q3, ["trtllm"]],
  [CT, "re:.*q_proj", Q3, ["vllm", "sglang", "trtllm", "transformers"]],
  [CT, "re:model\\.layers", Q3, ["vllm", "sglang", "transformers"]],
  [CT, "re:q_proj", Q3, []],
  [CT, "re:(?i).*Q_PROJ", Q3, ["vllm", "sglang", "transformers"]],
  [CT, "Linear", Q3, ["transformers"]],
  ["modelopt", Q3, Q3, ["vllm", "sglang", "trtllm"]],
  ["modelopt", "q_proj", Q3, ["vllm", "sglang"]],
  ["modelopt", "backbone.layers.3*", Q3, ["vllm", "trtllm"]],
  ["modelopt", "backbone.layers.3.*", Q3, ["vllm", "trtllm"]],
  ["modelopt", "*q_proj", Q3, ["vllm", "trtllm"]],
  ["modelopt", "backbone.layers.1", IN1, ["vllm", "sglang", "trtllm"]],
  ["modelopt", "backbone.layers.1", IN10, ["vllm", "sglang"]],
  ["modelopt", "backbone.layers.1*", IN10, ["vllm", "trtllm"]],
  ["modelopt", "backbone.layers.1.*", IN10, []],
  ["modelopt", "re:.*q_proj", Q3, ["trtllm"]],
  ["fp8", Q3, Q3, ["vllm", "sglang", "trtllm", "transformers"]],
  ["fp8", "q_proj", Q3, ["sglang", "transformers"]],
  ["fp8", "backbone.layers.1", IN1, ["sglang", "trtllm", "transformers"]],
  ["fp8", "backbone.layers.1", IN10, ["transformers"]],
  ["fp8", "model.layers.1", IN10, ["transformers"]],
  ["fp8", ".*in_proj", IN10, ["transformers"]],
];

describe("a list leaves a module alone", () => {
  it.each(ROWS)("%s: %s, %s", (method, entry, module, expected) => {
    const found = ENGINES.filter(({ methods }) => methods[method] !== undefined)
      .map(({ id }) => id)
      .filter((id) => hits(id, method, entry, module));
    expect(found).toEqual(expected);
  });

  it("vLLM leaves all experts of a layer alone where an entry names one", () => {
    const expert = (n: number) => `backbone.layers.1.mixer.experts.${n}.up_proj`;
    expect(hits("vllm", "modelopt", expert(3), expert(4))).toBe(true);
    expect(hits("vllm", "modelopt", "backbone.layers.1.mixer.experts*", expert(4))).toBe(true);
    expect(hits("vllm", "modelopt", "backbone.layers.1.mixer.shared_experts*", expert(4))).toBe(false);
    expect(hits("sglang", "modelopt", expert(3), expert(4))).toBe(false);
  });
});

it("an expression that takes forever is stopped, and named", () => {
  const slow = `${"a".repeat(60)}b`;
  const expressions = createExpressions([slow]);
  expect(expressions.matchesStart("(a+)+$", slow)).toBe(false);
  expect([...expressions.untried]).toEqual(["(a+)+$"]);
});
