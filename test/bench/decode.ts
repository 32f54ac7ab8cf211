/** What a token costs early and late in a text: in a model without attention, and in one with a single such layer. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { synthesize } from "../../fixtures/generate/synthesize.ts";
import { loadModelWithScales } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import { Sources } from "../../src/core/read.ts";
import { Decoder } from "../../src/inference/decoding/decoder.ts";
import { backendFor } from "../../src/inference/machine.ts";
import { Rounder } from "../../src/inference/rounding.ts";

/** An eighth of the published 8B model's widths, with half of its attention heads: what grows is to be seen. */
const WIDTHS = {
  ...{ hidden_size: 512, intermediate_size: 2688, vocab_size: 16384 },
  ...{ num_attention_heads: 16, num_key_value_heads: 4, head_dim: 128 },
  ...{ mamba_num_heads: 16, mamba_head_dim: 64, ssm_state_size: 128, n_groups: 8 },
};
const PATTERNS = { "12 Mamba layers": "MMMMMMMMMMMM", "and one of attention": "MMMMMM*MMMMMM" };
const [EARLY, LATE] = [10, 10_000];
const AT_ONCE = 500;

/** @param tokens how many are timed at either place */
export async function decodeTimes(tokens: number, work: string): Promise<void> {
  console.log(
    `\none token, ms, best (median)               by ${EARLY}               by ${LATE}            ratio`,
  );
  for (const [title, pattern] of Object.entries(PATTERNS)) {
    const folder = join(work, `isologit-bench-decode-${pattern.length}`);
    if (!existsSync(join(folder, "config.json"))) {
      const config = { ...WIDTHS, hybrid_override_pattern: pattern };
      await synthesize(folder, { config, seed: 0, maxShardBytes: 5e9 });
    }
    const [early, late] = (await timesIn(folder, tokens)).map((ms) => ms.sort((a, b) => a - b));
    const best = (ms: number[]) => `${ms[0]!.toFixed(2)} (${ms[ms.length >> 1]!.toFixed(2)})`;
    const ratio = late![0]! / early![0]!;
    console.log(title.padEnd(42) + best(early!).padEnd(20) + best(late!).padEnd(22) + ratio.toFixed(2));
  }
}

/** @returns milliseconds of single tokens read from EARLY on, and from LATE on, in one text */
async function timesIn(folder: string, tokens: number): Promise<number[][]> {
  const model = await loadModelWithScales(await openCheckpoint(folder), {});
  await using sources = new Sources(model.checkpoint.store);
  await using backend = await backendFor({ backend: "wasm" });
  const rounder = await Rounder.create();
  const common = { model, backend, sources, rounder, bandBytes: 8 << 20, signal: undefined };
  const decoder = new Decoder({ ...common, capacity: LATE + tokens });
  let at = 0;
  const read = async (count: number) => {
    await decoder.read(Array.from({ length: count }, () => (at++ * 37) % WIDTHS.vocab_size));
  };
  const timed = async () => {
    const ms: number[] = [];
    for (let i = 0; i < tokens; i++) {
      const started = performance.now();
      await read(1);
      ms.push(performance.now() - started);
    }
    return ms;
  };
  await read(EARLY);
  await timed(); // V8 compiles the kernels anew meanwhile, and the page cache fills
  const early = await timed();
  while (at < LATE) await read(Math.min(AT_ONCE, LATE - at));
  const late = await timed();
  decoder.close();
  return [early, late];
}
