/** The scores of a layer beside a model from which the layer was taken out, which runs through other code. In every family. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { importance } from "../../../src/api/pruning/importance.ts";
import { loadModelWithScales, type ModelWithScales } from "../../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../../src/checkpoint/open.ts";
import { mainLayers } from "../../../src/families/model.ts";
import { runForwardPass } from "../../../src/inference/forward-pass.ts";
import { familyGolden, golden, workFolder } from "../../support/goldens.ts";
import { scoresIn } from "../../support/minipuzzle.ts";
import { wasm } from "../../support/small-model.ts";

const work = workFolder();
const PROMPTS = [
  [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8],
  [27, 18, 28, 18, 2],
];

interface Outputs {
  /** [T, hidden] */
  readonly normed: Float64Array;
  /** [T][vocab] */
  readonly logits: readonly Float64Array[];
}

/** What the final norm and the head put out for all prompts, one prompt at a time. */
async function outputsOf(model: ModelWithScales): Promise<Outputs> {
  await using backend = await wasm();
  const [normed, logits]: [number[], Float64Array[]] = [[], []];
  for (const ids of PROMPTS) {
    const rows = ids.map(() => new Float64Array(model.dims.vocab));
    await runForwardPass(
      model,
      ids,
      backend,
      {},
      {
        residual(name, values) {
          if (name === "norm_f") normed.push(...values);
        },
        logits({ lo, width, values }) {
          for (const [t, row] of rows.entries()) row.set(values.subarray(t * width, (t + 1) * width), lo);
        },
      },
    );
    logits.push(...rows);
  }
  return { normed: Float64Array.from(normed), logits };
}

function divergence(a: Float64Array, b: Float64Array): number {
  const logSum = (row: Float64Array) => {
    const top = Math.max(...row);
    return top + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
  };
  const [sumA, sumB] = [logSum(a), logSum(b)];
  return a.reduce((sum, logit, i) => sum + Math.exp(logit - sumA) * (logit - sumA - b[i]! + sumB), 0);
}

const GOLDENS = [
  ...["tiny", "moe", "latent-moe", "megatron-bridge-moe"].map((name) => [name, golden(name)] as const),
  ...["llama", "nemotron", "qwen3", "mixtral", "bamba", "falcon_h1", "granitemoehybrid"].map(
    (name) => [name, familyGolden(name)] as const,
  ),
];

describe.each(GOLDENS)("%s", (name, folder) => {
  it("is scored as without each layer", async () => {
    const out = join(work, `${name}.safetensors`);
    await importance(folder, { out, prompts: PROMPTS, backend: "wasm", threads: 1 });
    const scores = await scoresIn(out);
    const model = await loadModelWithScales(await openCheckpoint(folder), {});
    const whole = await outputsOf(model);
    const tokens = PROMPTS.flat().length;
    for (const layer of mainLayers(model)) {
      const without = await outputsOf({ ...model, layers: model.layers.filter((other) => other !== layer) });
      const mse =
        whole.normed.reduce((sum, x, i) => sum + (x - without.normed[i]!) ** 2, 0) / whole.normed.length;
      const kl = whole.logits.reduce((sum, row, t) => sum + divergence(row, without.logits[t]!), 0) / tokens;
      const where = `layer ${layer.index}, ${layer.kind}`;
      expect(scores.get("layer.mse")![layer.index]! / mse, where).toBeCloseTo(1, 6);
      expect(Math.abs(scores.get("layer.kl")![layer.index]! - kl), where).toBeLessThan(1e-9 + 1e-6 * kl);
      expect(mse, where).toBeGreaterThan(0);
    }
  });
});

describe("scores of units", () => {
  const unitsIn = async (folder: string) => {
    const out = join(work, "units.safetensors");
    const options = { out, overwrite: true, cheap: true, prompts: PROMPTS, backend: "wasm" } as const;
    const { unavailable, layers } = await importance(folder, options);
    const names = [...(await scoresIn(out)).keys()].filter((name) => !name.startsWith("layer."));
    return { unavailable, names, kinds: layers.map(({ kind }) => kind) };
  };
  const SCORES: Readonly<Record<string, readonly string[]>> = {
    mamba: ["mamba.activation", "mamba.contribution"],
    attention: ["attention.activation", "attention.contribution"],
    mlp: ["ffn.activation", "ffn.preactivation", "ffn.contribution"],
    gated: ["ffn.activation", "ffn.contribution"],
    hybrid: ["mamba.activation", "mamba.contribution", "attention.activation", "attention.contribution"],
    moe: [],
  };

  it.each([
    ["latent-moe", golden("latent-moe"), "mlp"],
    ["nemotron", familyGolden("nemotron"), "mlp"],
    ["llama", familyGolden("llama"), "gated"],
    ["mixtral", familyGolden("mixtral"), "gated"],
    ["falcon_h1", familyGolden("falcon_h1"), "gated"],
    ["granitemoehybrid", familyGolden("granitemoehybrid"), "gated"],
  ] as const)(
    "exist where the layers of %s have the units; what is missing is named",
    async (_, folder, mlp) => {
      const { names, kinds, unavailable } = await unitsIn(folder);
      const expected = kinds.flatMap((kind, layer) =>
        SCORES[kind === "mlp" ? mlp : kind]!.map((score) => `${score}.${layer}`),
      );
      expect([...names].sort()).toEqual([...expected, "hidden.activation"].sort());
      const numbers = (wanted: string) => [...kinds.keys()].filter((layer) => kinds[layer] === wanted);
      const missing = [numbers("moe"), mlp === "gated" ? numbers("mlp") : []];
      expect(unavailable.map(({ layers }) => layers)).toEqual(missing.filter(({ length }) => length > 0));
    },
  );
});
