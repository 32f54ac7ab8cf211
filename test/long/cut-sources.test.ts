/** Sources with experts, prediction layers and FP8 weights. No tool wrote scores of them: those here are made up. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import { inspect } from "../../src/api/inspect.ts";
import { type PruneOptions, prune } from "../../src/api/pruning/prune.ts";
import { codeOf } from "../support/errors.ts";
import { fp8Dialects, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const ids = Array.from({ length: 20 }, (_, t) => (37 * t + 11) % 500);
let counter = 0;

/** Scores of a model, the same for each layer of a kind: `i * 7 % size` is the rank of unit i. */
async function scoresOf(source: string, sizes: Readonly<Record<string, number>>): Promise<string> {
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
  const values = all.flatMap(([, size]) => Array.from({ length: size }, (_, i) => (i * 7) % size));
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

  it.each(["ct-channel-dynamic", "fp8-block-8x32"])(
    "%s: layers may go, and widths are refused",
    { timeout: 120_000 },
    async (name) => {
      await within(fp8Dialects(name), { drop: [1] });
      const importance = await scoresOf(fp8Dialects(name), { mamba: 8 });
      const cut = () => prune(fp8Dialects(name), join(work, "refused"), { mambaHeads: 6, importance, ids });
      expect(await codeOf(cut)).toBe("UNSUPPORTED");
    },
  );
});
