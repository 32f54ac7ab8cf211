/** The type of each tensor of a kind of GGUF file: what llama-quantize chooses for six published shapes, and for real files. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { FILE_TYPES } from "../../formats/codec/gguf/types.ts";
import type { NamedShape } from "../../formats/format.ts";
import { type GgufFileKind, tensorTypes } from "../../formats/gguf/file-kinds.ts";
import { gguf } from "../../formats/gguf/format.ts";
import { bitsOf, countOf, FILE_KINDS } from "../../src/core/dtype.ts";
import { fileStore } from "../../src/io/file.ts";
import { ggufGolden } from "../support/goldens.ts";

interface Published {
  readonly pattern: string;
  /** dims fastest first; N stands for the layer */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  /** most matrices have one type; others are listed by type */
  readonly types: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

const published: Record<string, Published> = JSON.parse(readFileSync(ggufGolden("types.json"), "utf8"));

/** Which tensors a layer of each kind has. */
const KINDS: Readonly<Record<string, RegExp>> = {
  M: /attn_norm|ssm_/,
  "*": /attn_(norm|q|k|v|output)\./,
  "-": /attn_norm|ffn_(up|down)\./,
  E: /attn_norm|ffn_.*(exps|shexp|gate_inp)|exp_probs_b/,
};

function tensorsOf({ pattern, shapes }: Published): readonly NamedShape[] {
  return Object.entries(shapes).flatMap(([name, dims]) => {
    const shape = dims.toReversed();
    if (!name.startsWith("blk.N.")) return [{ name, shape }];
    return [...pattern].flatMap((kind, layer) =>
      KINDS[kind]!.test(name) ? [{ name: name.replace("N", String(layer)), shape }] : [],
    );
  });
}

const cases = Object.entries(published).flatMap(([model, shapes]) =>
  Object.entries(shapes.types).map(([type, expected]) => ({ model, type, shapes, expected })),
);

describe("llama-quantize chooses", () => {
  it.each(cases)("$type of $model", ({ type, shapes, expected }) => {
    const types = tensorTypes(type.toLowerCase() as GgufFileKind, tensorsOf(shapes));
    const { most, count, ...others } = expected;
    const named = new Map(
      Object.entries(others).flatMap(([dtype, names]) =>
        (names as readonly string[]).map((name) => [name, dtype]),
      ),
    );
    const found = [...types].filter(([, { dtype }]) => dtype !== "F32");
    expect(found.length).toBe((count as number) + named.size);
    for (const [name, { dtype }] of found) expect(dtype, name).toBe(named.get(name) ?? most);
  });
});

const quantized: Record<string, Record<string, { type: string }>> = JSON.parse(
  readFileSync(ggufGolden("quantized.json"), "utf8"),
);

it.each(Object.entries(quantized))("the types of %s", async (name, expected) => {
  const [model, kind] = [name.slice(0, name.indexOf("-")), name.slice(name.indexOf("-") + 1)];
  const source = ggufGolden(model === "k" ? "k-bf16.gguf" : "tiny-split");
  const { tensors } = await gguf.read(await fileStore(source));
  const types = tensorTypes(kind as GgufFileKind, tensors);
  expect(Object.fromEntries([...types].map(([tensor, { dtype }]) => [tensor, dtype]))).toEqual(
    Object.fromEntries(Object.entries(expected).map(([tensor, { type }]) => [tensor, type])),
  );
});

const NAMES = { q8_0: 0, q6_k: 1, q5_k_m: 2, q4_k_m: 3, q4_0: 4 } as const;
/** Bits of a weight, measured on llama-quantize's own files. */
const BITS = {
  "nemotron-h-8b": [8.5, 6.57, 5.72, 4.91, 4.64],
  "nemotron-h-47b": [8.5, 6.57, 5.67, 4.82, 4.55],
  "nano-12b-v2": [8.5, 6.57, 5.69, 4.87, 4.62],
  "nano-9b-v2": [8.51, 8.22, 6.36, 5.87, 4.77],
  "nano-30b-a3b": [8.51, 8.49, 6.6, 6.21, 4.55],
} as const;

it.each(Object.entries(BITS))("bits of a weight of %s", (model, expected) => {
  const tensors = tensorsOf(published[model]!);
  const weights = tensors.reduce((sum, { shape }) => sum + countOf(shape), 0);
  for (const [kind, i] of Object.entries(NAMES)) {
    const types = tensorTypes(kind as GgufFileKind, tensors);
    const bits = tensors.reduce(
      (sum, { name, shape }) => sum + countOf(shape) * bitsOf(types.get(name)!.dtype),
      0,
    );
    expect(bits / weights, kind).toBeCloseTo(expected[i]!, 2);
  }
});

describe("single rules", () => {
  const chosen = (kind: GgufFileKind, tensors: readonly NamedShape[]) =>
    Object.fromEntries([...tensorTypes(kind, tensors)].map(([name, { dtype }]) => [name, dtype]));

  it("a table of tokens without a head is stored as the head", () => {
    const table = { name: "token_embd.weight", shape: [512, 256] };
    expect(chosen("q4_k_m", [table])).toEqual({ [table.name]: "Q6_K" });
    const head = { ...table, name: "output.weight" };
    expect(chosen("q4_k_m", [head, table])).toEqual({ [head.name]: "Q6_K", [table.name]: "Q4_K" });
  });

  it("with exactly 8 experts, keys and values get more", () => {
    const names = ["attn_k", "attn_output", "attn_q", "attn_v"];
    const tensors = names.map((name) => ({ name: `blk.8.${name}.weight`, shape: [256, 256] }));
    const withExperts = (experts: number) =>
      Object.values(
        chosen("q4_k_m", [...tensors, { name: "blk.9.ffn_gate_inp.weight", shape: [experts, 256] }]),
      );
    expect(withExperts(8)).toEqual(["Q8_0", "Q5_K", "Q4_K", "Q8_0", "F32"]);
    expect(withExperts(16)).toEqual(["Q4_K", "Q4_K", "Q4_K", "Q6_K", "F32"]);
  });

  it("layers are counted in their order, not in that of their names", () => {
    const tensors = [10, 9, 1].map((i) => ({ name: `blk.${i}.attn_v.weight`, shape: [256, 256] }));
    // of three values the first eighth is none, the last eighth is the last one, and every third of the others the last one
    expect(chosen("q4_k_m", tensors)["blk.10.attn_v.weight"]).toBe("Q6_K");
    expect(chosen("q4_k_m", tensors)["blk.9.attn_v.weight"]).toBe("Q4_K");
  });

  it("rows that are no whole blocks fall back, and the choice tells from what", () => {
    const tensorOf = (row: number) => [{ name: "blk.0.ffn_up.weight", shape: [8, row] }];
    const choice = (kind: GgufFileKind, row: number) =>
      tensorTypes(kind, tensorOf(row)).get("blk.0.ffn_up.weight");
    expect(choice("q4_k_m", 2688)).toEqual({ dtype: "Q5_0", instead: "Q4_K" });
    expect(choice("q5_k_m", 2688)).toEqual({ dtype: "Q5_1", instead: "Q5_K" });
    expect(choice("q6_k", 2688)).toEqual({ dtype: "Q8_0", instead: "Q6_K" });
    expect(choice("q6_k", 2690)).toEqual({ dtype: "F16", instead: "Q6_K" });
    expect(choice("q8_0", 2690)).toEqual({ dtype: "F16", instead: "Q8_0" });
    expect(choice("q4_k_m", 2560)).toEqual({ dtype: "Q4_K" });
  });
});

it("every kind has a number in the file", () => {
  const names = new Set(FILE_TYPES.values());
  for (const kind of Object.keys(FILE_KINDS)) expect(names).toContain(kind.toUpperCase());
});
