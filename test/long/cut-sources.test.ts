/** Sources with experts, prediction layers and FP8 weights. No tool wrote scores of them: those here are made up. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import { inspect } from "../../src/api/inspect.ts";
import { type PruneOptions, prune } from "../../src/api/pruning/prune.ts";
import { fp8Dialects, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const ids = Array.from({ length: 20 }, (_, t) => (37 * t + 11) % 500);
let counter = 0;

/** Scores of a model, the same for each layer of a kind. */
async function scoresOf(
  source: string,
  sizes: Readonly<Record<string, number>>,
  scoreOf = (unit: number, size: number) => (unit * 7) % size,
): Promise<string> {
  const { source: measured } = await prune(source, undefined, { drop: [0], ids, dryRun: true });
  const { pattern } = await inspect(source);
  const kinds: Readonly<Record<string, string>> = { "-": "ffn", M: "mamba", "*": "attention" };
  const names = [...pattern!].flatMap((letter, layer) => {
    const size = sizes[kinds[letter] ?? ""];
    return size === undefined ? [] : [[`${kinds[letter]}.contribution.${layer}`, size] as const];
  });
  const all = [
    ...names,
    ...(sizes.hidden === undefined ? [] : [["hidden.activation", sizes.hidden] as const]),
  ];
  let begin = 0;
  const tensors = all.map(([name, size]) => {
    const tensor = { name, dtype: "F32" as const, shape: [size], begin, end: begin + 4 * size };
    begin += 4 * size;
    return tensor;
  });
  const isologit = JSON.stringify({ root: measured.root, prompts: { count: 1, tokens: 1, sha256: "" } });
  const values = all.flatMap(([, size]) => Array.from({ length: size }, (_, i) => scoreOf(i, size)));
  const file = join(work, `scores-${counter++}.safetensors`);
  writeFileSync(
    file,
    Buffer.concat([encodeHeader(tensors, { isologit }), Buffer.from(Float32Array.from(values).buffer)]),
  );
  return file;
}

async function within(source: string, options: PruneOptions) {
  const report = await prune(source, join(work, `dst-${counter++}`), { ...options, ids });
  expect(report.verification?.verdict).toBe("within");
  expect(report.verification?.firstDivergence).toBeNull();
  return report;
}

describe("experts and prediction layers", () => {
  it.each([
    ["moe", 96],
    ["latent-moe", 64],
  ] as const)("%s with a narrower hidden state", { timeout: 120_000 }, async (name, hidden) => {
    const importance = await scoresOf(golden(name), { hidden });
    const report = await within(golden(name), { hidden: 48, importance });
    expect(report.architecture.hidden).toBe(48);
    const controls = report.verification!.rungs.flatMap(({ metrics }) =>
      "controls" in metrics ? metrics.controls : [],
    );
    expect(controls.some(({ mutation }) => /hidden \d+, which was dropped/.test(mutation))).toBe(true);
  });

  it("refuses the width of experts by name", async () => {
    const options = { ffn: 8, ids, dryRun: true };
    const failure = prune(golden("moe"), undefined, options);
    await expect(failure).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringContaining("experts"),
    });
  });
});

describe("FP8 weights keep their codes and scales", () => {
  it.each(["ct-tensor-dynamic", "ct-tensor-static", "modelopt-fp8", "fp8-tensor-static"])(
    "%s with fewer layers and heads",
    { timeout: 120_000 },
    async (name) => {
      const importance = await scoresOf(fp8Dialects(name), { mamba: 8, ffn: 96 });
      await within(fp8Dialects(name), { drop: [1], mambaHeads: 6, ffn: 64, importance });
    },
  );

  /** Names of FP8 weights with the elements of their scales, in each folder. */
  const scaledIn = async (folder: string) => {
    const { tensors } = await inspect(folder, { tensors: true });
    return tensors!.filter(({ dtype, scale }) => dtype.startsWith("F8") && scale != null);
  };

  it("a scale for each row goes with its row, and stays where columns go", { timeout: 120_000 }, async () => {
    const source = fp8Dialects("ct-channel-dynamic");
    const sizes = { mamba: 8, ffn: 96, attention: 4, hidden: 64 };
    const importance = await scoresOf(source, sizes);
    for (const shape of [
      { mambaHeads: 6, ffn: 64 },
      { hidden: 48 },
      { drop: [1], mambaHeads: 4, ffn: 80, heads: 2, hidden: 32 },
    ]) {
      const { destination } = await within(source, { ...shape, importance, to: "hf" });
      expect((await scaledIn(destination!.path)).length).toBeGreaterThan(0);
    }
  });

  it("whole blocks go with their scales, and a cut inside a block is refused", {
    timeout: 120_000,
  }, async () => {
    const source = fp8Dialects("fp8-block-8x32");
    await within(source, { drop: [1] });
    const inBlocks = await scoresOf(source, { ffn: 96, hidden: 64 }, (unit) => Math.floor(unit / 32));
    await within(source, { ffn: 64, importance: inBlocks });
    await within(source, { ffn: 32, hidden: 32, importance: inBlocks });
    const across = await scoresOf(source, { ffn: 96, mamba: 8 });
    for (const shape of [{ ffn: 64 }, { mambaHeads: 6 }]) {
      const refused = prune(source, join(work, "refused"), { ...shape, importance: across, ids });
      await expect(refused).rejects.toMatchObject({
        code: "UNSUPPORTED",
        message: /divides blocks of \d+ (rows|columns)/,
      });
    }
  });

  it.each(["ct-channel-dynamic", "fp8-block-8x32"])(
    "%s: layers may go",
    { timeout: 120_000 },
    async (name) => {
      await within(fp8Dialects(name), { drop: [1] });
    },
  );
});
