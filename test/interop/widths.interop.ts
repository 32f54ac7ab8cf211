/** The widths of the published 8B model, two or three layers of them: our logits against those of Transformers. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { preset, synthesize } from "../../fixtures/generate/synthesize.ts";
import { workFolder } from "../support/goldens.ts";
import { absent, type Distances, judge, record, titled } from "./judge.ts";
import { isologit } from "./program.ts";

const work = workFolder();
const { ask } = judge();

describe.skipIf(absent !== null)(titled("8B widths, 64 tokens"), () => {
  it.each(["M*", "M-", "M*-"])("%s", async (pattern) => {
    const [folder, out] = [join(work, "wide"), join(work, "wide.safetensors")];
    const { config, maxShardBytes } = preset("m2");
    const cut = { ...config, hybrid_override_pattern: pattern, vocab_size: 4096 };
    await synthesize(folder, { config: cut, seed: 0, maxShardBytes });
    isologit("logits", folder, "--out", out, "--tokens", "64", "--overwrite");
    const { T64 } = await ask<Record<"T64", Distances>>("logits", { folder, prompts: { T64: out } });
    record(
      `8B widths, ${pattern}`,
      `rel L2 ${T64.rel_l2.toExponential(1)}, max abs ${T64.max_abs.toExponential(1)}`,
    );
    expect(T64.rel_l2).toBeLessThanOrEqual(2e-5);
  });
});
