/**
 * Records what a built program prints and writes, so that the records of two versions can be compared by `diff`.
 *
 *   npm run outputs -- [PROGRAM] OUT.json [FIXTURE…]
 *
 * PROGRAM is a built `dist/bin/isologit.js`, by default the one of this repository. A FIXTURE is a part of a case's
 * name, as `tiny`, `pickles/` or `options`; without any, all cases run, two at a time.
 *
 * Every command line has the exit status, the `--json` object without times, machine and wording (stable.ts), the
 * kinds of events, the digests of the reports, and the SHA-256 of every file that it wrote. What is covered:
 *
 * - each checkpoint of fixtures/nemotron-h: reading commands, logits with hidden states, generated tokens; plan and
 *   convert to every format (megatron at TP 2 and PP 2, bridge at TP 2), then check, both forms of verify, and the way
 *   back to hf with its diff; and recasts to f32, f16 and both FP8;
 * - four containers that hold the weights of another checkpoint: the same without plans, verify, way back and recasts;
 * - options, FP8 sources, damaged copies and wrong usage, on `tiny` and `moe`;
 * - each file of fixtures/hostile: check, scan and a conversion; other files in fixtures: inspect, check and scan.
 */
import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { hostile, oneWay, options, recasts, roundTrips, survey } from "./cases.ts";
import { type Entries, openSession, type Session } from "./session.ts";
import type { Json } from "./stable.ts";

const AT_ONCE = 2;
/** The copy of fixtures/ in the working folder. */
const FIXTURES = "fixtures";
const CHECKPOINTS = join(FIXTURES, "nemotron-h");

interface Case {
  readonly name: string;
  record(session: Session): Promise<void>;
}

/** Checkpoints with the weights of another one, in another container: only their way out is recorded. */
const EQUAL_WEIGHTS = ["nemo2-tp2", "nemo1-zarr-tp2.nemo", "nemo2-tiny/hf", "megatron-bridge-moe/hf"];
/** Recorded data beside the checkpoints, not checkpoints. */
const NO_CHECKPOINT = ["megatron"];

function casesIn(work: string): readonly Case[] {
  const childrenOf = (folder: string, apart: readonly string[] = []) =>
    readdirSync(join(work, folder))
      .filter((name) => !apart.includes(name) && !/\.(json|md)$/.test(name))
      .sort();
  const checkpoints = [
    ...childrenOf(CHECKPOINTS, NO_CHECKPOINT),
    ...["nemo2-tiny/hf", "megatron-bridge-moe/hf"],
  ];
  return [
    { name: "options", record: (session) => options(session, work, CHECKPOINTS) },
    ...checkpoints.map((name) => ({
      name,
      record: (session: Session) =>
        (EQUAL_WEIGHTS.includes(name) ? oneWay : roundTrips)(session, join(CHECKPOINTS, name)),
    })),
    ...checkpoints
      .filter((name) => !EQUAL_WEIGHTS.includes(name))
      .map((name) => ({
        name: `${name}/recasts`,
        record: (session: Session) => recasts(session, join(CHECKPOINTS, name)),
      })),
    ...["hostile/packed", "hostile/pickles", "hostile/safetensors"].flatMap((folder) =>
      childrenOf(join(FIXTURES, folder)).map((name) => ({
        name: `${folder}/${name}`,
        record: (session: Session) => hostile(session, join(FIXTURES, folder, name)),
      })),
    ),
    ...["near-misses", "safetensors-written", "fp8-hf"].flatMap((folder) =>
      childrenOf(join(FIXTURES, folder)).map((name) => ({
        name: `${folder}/${name}`,
        record: (session: Session) => survey(session, join(FIXTURES, folder, name)),
      })),
    ),
  ];
}

async function main(): Promise<void> {
  const args = process.argv.slice(2);
  const program = args[0]?.endsWith(".js") ? resolve(args.shift()!) : ownProgram();
  const [out, ...wanted] = args;
  if (out === undefined) throw new Error("usage: npm run outputs -- [PROGRAM] OUT.json [FIXTURE…]");
  const work = mkdtempSync(join(tmpdir(), "isologit-outputs-"));
  try {
    const fixtures = fileURLToPath(new URL("../../../fixtures", import.meta.url));
    cpSync(fixtures, join(work, FIXTURES), { recursive: true, verbatimSymlinks: true });
    const all = casesIn(work);
    const cases = all.filter(({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part)));
    if (cases.length === 0)
      throw new Error(`no such case; there are ${all.map(({ name }) => name).join(", ")}`);
    const record = await recordAll(program, work, cases);
    writeFileSync(out, `${JSON.stringify(record, null, 1)}\n`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function ownProgram(): string {
  return fileURLToPath(new URL("../../bin/isologit.js", import.meta.url));
}

/** Runs all cases, as many at once as there are workers; the result has their order. */
async function recordAll(program: string, work: string, cases: readonly Case[]): Promise<Json> {
  const results = new Map<string, Json>();
  const queue = [...cases];
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const started = performance.now();
      const entries: Entries = new Map();
      const folder = next.name.replaceAll("/", "-");
      await next.record(openSession(program, work, folder, entries));
      rmSync(join(work, "outputs", folder), { recursive: true, force: true });
      results.set(next.name, Object.fromEntries(entries));
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      console.error(
        `${results.size} of ${cases.length}: ${next.name}, ${entries.size} commands, ${seconds} s`,
      );
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return Object.fromEntries(cases.map(({ name }) => [name, results.get(name)!]));
}

await main();
