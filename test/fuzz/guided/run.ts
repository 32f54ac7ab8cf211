/**
 * A fuzzer guided by coverage, over every parser of bytes from strangers: `npm run fuzz -- --targets pickle,tar --seconds 600`.
 *
 *   --targets A,B   parsers by their names in targets.ts; default: all, one after the other
 *   --runs N        inputs for each, default 2,000; --seconds N: at most so long for each
 *   --seed N        default 1; the same seed and --runs try the same inputs
 *   --stop          go on to the next parser after a fault
 *   --corpus DIR    folder with an inner folder for each parser: inputs there are tried first, and new ones are added
 *
 * A parser gives a value or an IsologitError, within two seconds and 512 MiB. For each other outcome the input is written to
 * DIR/faults (default: the temporary folder of the system), and the exit status is 1.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { sha256 } from "../../../src/core/hash.ts";
import { FIXTURES } from "./folders.ts";
import { TARGETS } from "./targets.ts";
import type { FuzzMessage, FuzzWork } from "./worker.ts";

const { values } = parseArgs({
  options: {
    targets: { type: "string", default: Object.keys(TARGETS).join(",") },
    runs: { type: "string" },
    seconds: { type: "string" },
    seed: { type: "string", default: "1" },
    corpus: { type: "string" },
    stop: { type: "boolean", default: false },
  },
});
const { corpus } = values;
const faultFolder = join(corpus ?? tmpdir(), corpus === undefined ? "isologit-fuzz-faults" : "faults");
/** A thread that tries one input for longer is ended; a busy machine may take long for an input of two seconds. */
const HANG_MS = 60_000;

let faults = 0;
const targets = values.targets.split(",").map((name) => ({ name, seeds: seedsOf(name) }));
const current = new SharedArrayBuffer(4 + 65_536 * 8);
const work: FuzzWork = {
  ...{ targets, seed: Number(values.seed), current },
  stops: values.stop,
  runs: Number(values.runs ?? (values.seconds === undefined ? 2_000 : Number.MAX_SAFE_INTEGER)),
  seconds: Number(values.seconds ?? Number.MAX_SAFE_INTEGER / 1000),
};
const worker = new Worker(new URL("./worker.js", import.meta.url), {
  workerData: work,
  resourceLimits: { maxOldGenerationSizeMb: 512 },
});
/** The parser that ended last; the next one is at work. */
let ended = -1;
const atWork = () => targets[ended + 1]?.name ?? "no parser";
const tried = () => Buffer.from(new Uint8Array(current.slice(4, 4 + new Int32Array(current, 0, 1)[0]!)));
let last = { time: performance.now(), input: "" };
const watch = setInterval(() => {
  const input = sha256(tried());
  if (input !== last.input) last = { time: performance.now(), input };
  else if (performance.now() - last.time > HANG_MS) {
    clearInterval(watch);
    tell(atWork(), tried(), "it hangs");
    void worker.terminate();
  }
}, 1000);
worker.on("message", ({ target, ...message }: FuzzMessage) => {
  if (message.type === "kept" && corpus !== undefined) save(join(corpus, target), message.input);
  if (message.type === "fault") tell(target, message.input, message.why);
  if (message.type === "end") {
    ended++;
    console.log(JSON.stringify({ target, ...message, type: undefined }));
  }
});
worker.on("error", (error) => tell(atWork(), tried(), String(error))); // out of memory
worker.on("exit", () => {
  clearInterval(watch);
  process.exitCode = faults === 0 && ended === targets.length - 1 ? 0 : 1;
});

function tell(target: string, input: Uint8Array, why: string): void {
  faults++;
  const path = save(faultFolder, input, `${target}-`);
  console.log(`${target}: ${why.split("\n").slice(0, 8).join("\n")}\n  the input is ${path}`);
}

function save(folder: string, input: Uint8Array, prefix = ""): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${prefix}${sha256(input).slice(0, 16)}`);
  writeFileSync(path, input);
  return path;
}

/** What the repository has for a parser, and what an earlier run collected. */
function seedsOf(target: string): readonly Uint8Array[] {
  const folders = [join(FIXTURES, "fuzz", target), ...(corpus === undefined ? [] : [join(corpus, target)])];
  const kept = folders.filter(existsSync).flatMap((folder) =>
    readdirSync(folder)
      .sort()
      .map((name) => join(folder, name)),
  );
  const seeds = (TARGETS[target]?.seeds ?? []).map((path) => join(FIXTURES, path));
  const inputs = [...seeds, ...kept].map((path) => new Uint8Array(readFileSync(path)));
  return inputs.length > 0 ? inputs : [new Uint8Array(4)];
}
