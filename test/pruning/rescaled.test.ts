/** `rescaleGain`: silent heads go without a trace, the gains are derived as said, and the proof sees a wrong one. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { logits } from "../../src/api/logits.ts";
import { type PruneOptions, prune } from "../../src/api/pruning/prune.ts";
import { verify } from "../../src/api/verify.ts";
import { relL2 } from "../../src/core/distance.ts";
import { widen } from "../../src/core/float.ts";
import { arraysOf, floatsOf, workFolder } from "../support/goldens.ts";
import { DIM, MAMBA, mixerName, scoresOfHeads, withSilentHeads } from "../support/silent-heads.ts";

const work = workFolder();
const ids = Array.from({ length: 24 }, (_, t) => (37 * t + 11) % 512);
const source = await withSilentHeads(join(work, "silent"));
const importance = await scoresOfHeads(source, join(work, "scores.safetensors"));
const options: PruneOptions = { to: "hf", mambaHeads: 6, importance, ids, threads: 1 };

async function logitsOf(model: string): Promise<Float32Array> {
  const out = join(work, "logits.safetensors");
  await logits(model, { out, ids, overwrite: true });
  return floatsOf((await arraysOf(out)).get("logits")!);
}

const gainsIn = async (folder: string, layer: number) => {
  const { dtype, bytes } = (await arraysOf(join(folder, "model.safetensors"))).get(
    mixerName(layer, "norm.weight"),
  )!;
  return { dtype, values: widen(dtype as "BF16", bytes) };
};

describe("silent heads", async () => {
  const [plain, rescaled] = [join(work, "plain"), join(work, "rescaled")];
  const before = await prune(source, plain, options);
  const after = await prune(source, rescaled, { ...options, rescaleGain: true });

  it("move the logits by some percent when they go, and by the rounding of the gains with the flag", async () => {
    const whole = await logitsOf(source);
    const [without, with_] = [relL2(whole, await logitsOf(plain)), relL2(whole, await logitsOf(rescaled))];
    expect(without).toBeGreaterThan(0.02);
    expect(with_).toBeLessThan(4e-3); // BF16 rounds each gain by at most 2^-9
    expect(after.damage!.klMean).toBeLessThan(before.damage!.klMean / 20);
  });

  it("each gain is the source's times the root of 8 / 6, rounded to its type; no other tensor differs", async () => {
    const factor = Math.sqrt(8 / 6);
    expect([before.gainFactor, after.gainFactor]).toEqual([null, factor]);
    const [left, right] = [plain, rescaled].map((folder) => readFileSync(join(folder, "model.safetensors")));
    expect(left!.byteLength).toBe(right!.byteLength);
    for (const layer of MAMBA) {
      const [old, derived] = [await gainsIn(plain, layer), await gainsIn(rescaled, layer)];
      expect(derived.dtype).toBe("BF16");
      for (const [i, value] of old.values.entries())
        expect(Math.abs(derived.values[i]! / (value * factor) - 1)).toBeLessThanOrEqual(2 ** -8);
    }
    const [olds, news] = await Promise.all(
      [plain, rescaled].map((folder) => arraysOf(join(folder, "model.safetensors"))),
    );
    const different = [...olds!].filter(
      ([name, { bytes }]) => !Buffer.from(bytes).equals(news!.get(name)!.bytes),
    );
    expect(different.map(([name]) => name).sort()).toEqual(
      MAMBA.map((layer) => mixerName(layer, "norm.weight")).sort(),
    );
  });

  it("the verdict says which elements are derived, and so does the certificate", async () => {
    expect(after.verification?.verdict).toBe("within");
    const [cover] = after.verification!.rungs;
    expect(cover!.metrics).toMatchObject({ derived: { "ssm.norm": MAMBA.length * 6 * DIM } });
    expect(before.verification!.rungs[0]!.metrics).not.toHaveProperty("derived");
    const { cut } = JSON.parse(readFileSync(join(rescaled, "isologit.certificate.json"), "utf8"));
    expect(cut.rescaledGains).toBe(true);
    expect((await verify(rescaled)).verdict).toBe("same");
  });
});

it("is refused where no head goes", async () => {
  for (const shape of [{ drop: [1] }, {}, { layers: { mlp: 7 } }] as const) {
    const refused = prune(source, undefined, { ...shape, rescaleGain: true, dryRun: true });
    await expect(refused).rejects.toMatchObject({ code: "USAGE", message: /`mambaHeads` was not given/ });
  }
});
