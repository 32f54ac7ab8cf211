/** What a start takes beside an empty Node: the version, the description of a small folder, and the library. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const place = (path: string) => fileURLToPath(new URL(path, import.meta.url));
/** This file runs from `dist/test/bench`. */
const program = place("../../bin/isologit.js");
const folder = place("../../../fixtures/nemotron-h/tiny");
const library = new URL("../../src/index.js", import.meta.url).href;

/** Arguments of node. */
const STARTS = {
  "node -e 0": ["-e", "0"],
  "isologit --version, aim: 60 ms": [program, "--version"],
  "isologit inspect FOLDER, aim: 200 ms": [program, "inspect", folder],
  'import "isologit"': ["--input-type=module", "-e", `await import(${JSON.stringify(library)})`],
};

/** @param rounds how often each is started, in turn */
export function startTimes(rounds: number): void {
  const runs = Object.keys(STARTS).map((): number[] => []);
  for (let round = 0; round <= rounds; round++) {
    for (const [i, args] of Object.values(STARTS).entries()) {
      const started = performance.now();
      const { status } = spawnSync(process.execPath, args, { stdio: "ignore" });
      if (status !== 0) throw new Error(`node ${args.join(" ")} exited with ${status}`);
      if (round > 0) runs[i]!.push(performance.now() - started); // the first round fills the page cache
    }
  }
  console.log(`\n${"start, ms, median (min-max)".padEnd(42)}whole                 above an empty node`);
  for (const [i, title] of Object.keys(STARTS).entries()) {
    const above = runs[i]!.map((ms, round) => ms - runs[0]![round]!);
    console.log(title.padEnd(42) + spread(runs[i]!).padEnd(22) + (i === 0 ? "" : spread(above)));
  }
}

function spread(numbers: readonly number[]): string {
  const sorted = numbers.toSorted((a, b) => a - b);
  const [median, least, most] = [sorted[sorted.length >> 1]!, sorted[0]!, sorted.at(-1)!];
  return `${median.toFixed(0)} (${least.toFixed(0)}-${most.toFixed(0)})`;
}
