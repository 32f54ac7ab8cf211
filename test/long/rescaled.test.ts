/** Rescaled gains in other formats than folders. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { type PruneOptions, prune } from "../../src/api/pruning/prune.ts";
import { workFolder } from "../support/goldens.ts";
import { scoresOfHeads, withSilentHeads } from "../support/silent-heads.ts";

const work = workFolder();
const ids = Array.from({ length: 24 }, (_, t) => (37 * t + 11) % 512);
const source = await withSilentHeads(join(work, "silent"));
const importance = await scoresOfHeads(source, join(work, "scores.safetensors"));
const options: PruneOptions = { mambaHeads: 6, importance, ids, threads: 1 };

it("into other formats and at TP 2", { timeout: 120_000 }, async () => {
  for (const extra of [{ to: "packed" }, { to: "nemo2" }, { to: "megatron", tp: 2 }, { to: "gguf" }]) {
    const report = await prune(source, join(work, `${extra.to}${ENDINGS[extra.to] ?? ""}`), {
      ...options,
      ...extra,
      rescaleGain: true,
    });
    expect(report.verification?.verdict, extra.to).toBe("within");
  }
});

/** GGUF stores norms as F32: the derived gains are those of the source's type all the same. */
const ENDINGS: Readonly<Record<string, string>> = { packed: ".isologit", gguf: ".gguf" };
