/** What `importance` reads, holds and takes, at the widths of the published 8B model: beside one forward pass, and at a quarter of the layers. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { preset, synthesize } from "../../fixtures/generate/synthesize.ts";

const TOKENS = 64;
const PATTERNS = { "a quarter": "M-", whole: "M-M-M-M*" };

interface Measured {
  readonly seconds: number;
  readonly peakRssBytes: number;
  readonly bytesRead: number;
}

/**
 * @param program path of the executable
 * @param memory  of each run, in MiB
 */
export async function importanceTimes(
  program: string,
  rounds: number,
  work: string,
  memory: number,
): Promise<void> {
  console.log(`\nimportance, ${TOKENS} tokens, --memory ${memory}MiB`);
  console.log("model      read / size  peak MiB  s, median (range)      / ((N + 1) / 2 passes)  --cheap s");
  for (const [title, pattern] of Object.entries(PATTERNS)) {
    const folder = join(work, `isologit-bench-importance-${pattern.length}`);
    const { config, ...rest } = preset("m2");
    if (!existsSync(join(folder, "config.json")))
      await synthesize(folder, { ...rest, config: { ...config, hybrid_override_pattern: pattern }, seed: 0 });
    const weights = readdirSync(folder).filter((name) => name.endsWith(".safetensors"));
    const size = weights.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
    const run = (command: string, ...flags: readonly string[]): Measured => {
      const out = join(work, "isologit-bench-importance.safetensors");
      const given = [command, folder, "--out", out, "--tokens", `${TOKENS}`, "--memory", `${memory}MiB`];
      const { stdout, status } = spawnSync(
        process.execPath,
        [program, ...given, "--overwrite", "--json", "--quiet", "--backend", "wasm", ...flags],
        { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] },
      );
      rmSync(out, { force: true });
      if (status !== 0) throw new Error(`${given.join(" ")} exited with ${status}`);
      return JSON.parse(stdout);
    };
    const [passes, scored, cheap]: [Measured[], Measured[], Measured[]] = [[], [], []];
    for (let round = 0; round < rounds; round++) {
      passes.push(run("logits"));
      scored.push(run("importance"));
      cheap.push(run("importance", "--cheap"));
    }
    const expected = (pattern.length + 1) / 2;
    const ratios = scored.map(({ seconds }, i) => seconds / (expected * passes[i]!.seconds));
    const seconds = (of: readonly Measured[]) => of.map((one) => one.seconds);
    const peak = Math.max(...scored.map(({ peakRssBytes }) => peakRssBytes)) / 2 ** 20;
    console.log(
      [
        title.padEnd(11),
        (scored[0]!.bytesRead / size).toFixed(3).padEnd(13),
        peak.toFixed(0).padEnd(10),
        spread(seconds(scored)).padEnd(23),
        spread(ratios).padEnd(24),
        spread(seconds(cheap)),
      ].join(""),
    );
  }
}

/** Median, and the range it was found in. */
export function spread(numbers: readonly number[]): string {
  if (numbers.length === 0) return "-";
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  const median = sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  return `${median.toFixed(2)} (${sorted[0]!.toFixed(2)}-${sorted.at(-1)!.toFixed(2)})`;
}
