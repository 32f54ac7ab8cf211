/** What a search measures in one reading of the weights: 32 candidates at once, beside 32 runs of `logits`. */
import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { synthesize } from "../../fixtures/generate/synthesize.ts";
import { spread } from "./importance.ts";

const [CANDIDATES, TOKENS] = [32, 64];

/** Half of the published 8B model's widths, eight layers: 0.7 GB. */
const CONFIG = {
  ...{ hidden_size: 2048, intermediate_size: 10752, vocab_size: 16384 },
  ...{ num_attention_heads: 16, num_key_value_heads: 4, head_dim: 128 },
  ...{ mamba_num_heads: 64, mamba_head_dim: 64, ssm_state_size: 128, n_groups: 8 },
  hybrid_override_pattern: "M-M-M-M*",
};
/** 36 shapes: all fit, the 32 that promise most are measured. */
const GRID = "attention=1,mamba=3..4,mlp=2..3,ffn=8064..10752/336";

interface Ran {
  readonly seconds: number;
  readonly peakRssBytes: number;
}

/**
 * The runs of `logits` read the whole model each; a written candidate would have up to a quarter less to read and compute.
 * The search's time includes its plan, one more reading for the content root, and the choice.
 *
 * @param program path of the executable
 * @param memory  of each run, in MiB
 */
export async function cutTimes(program: string, rounds: number, work: string, memory: number): Promise<void> {
  const folder = join(work, "isologit-bench-cuts");
  if (!existsSync(join(folder, "config.json")))
    await synthesize(folder, { config: CONFIG, seed: 0, maxShardBytes: 5e9 });
  const scores = join(work, "isologit-bench-cuts-scores.safetensors");
  const out = join(work, "isologit-bench-cuts-logits.safetensors");
  const run = (command: string, ...flags: readonly string[]): Ran => {
    const given = [command, folder, "--tokens", `${TOKENS}`, "--memory", `${memory}MiB`, ...flags];
    const { stdout, status } = spawnSync(
      process.execPath,
      [program, ...given, "--json", "--quiet", "--backend", "wasm"],
      { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] },
    );
    if (status !== 0) throw new Error(`${given.join(" ")} exited with ${status}`);
    return JSON.parse(stdout);
  };
  run("importance", "--out", scores, "--overwrite");
  const search = ["--grid", GRID, "--params", "1e12", "--candidates", `${CANDIDATES}`];
  const [together, apart, peaks]: [number[], number[], number[]] = [[], [], []];
  for (let round = 0; round < rounds; round++) {
    const { seconds, peakRssBytes } = run("prune", "--dry-run", "--importance", scores, ...search);
    together.push(seconds);
    peaks.push(peakRssBytes / 2 ** 20);
    let sum = 0;
    for (let i = 0; i < CANDIDATES; i++) sum += run("logits", "--out", out, "--overwrite").seconds;
    apart.push(sum);
  }
  for (const file of [scores, out]) rmSync(file, { force: true });
  const ratios = together.map((seconds, i) => seconds / apart[i]!);
  console.log(`\n${CANDIDATES} candidates, ${TOKENS} tokens, --memory ${memory}MiB`);
  console.log(`one search, s           ${CANDIDATES} x logits, s        search / logits       peak MiB`);
  const cells = [spread(together).padEnd(24), spread(apart).padEnd(24), spread(ratios).padEnd(22)];
  console.log(`${cells.join("")}${Math.max(...peaks).toFixed(0)}`);
}
