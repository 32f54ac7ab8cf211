/**
 * Fuzzes one parser in a thread. Inputs are tried in groups: V8 tells what ran during a group, and only if some of it is new
 * its halves are tried again, down to single inputs. Those that reach new code join the corpus and are changed further.
 */
import { parentPort, workerData } from "node:worker_threads";
import { IsologitError } from "../../../src/core/errors.ts";
import { changed, fastRandom } from "./change.ts";
import { Coverage } from "./coverage.ts";
import { parsePlanted } from "./planted.ts";
import { TARGETS, type Target } from "./targets.ts";

export interface FuzzWork {
  /** the parsers, each with the inputs that it begins with */
  readonly targets: readonly { readonly name: string; readonly seeds: readonly Uint8Array[] }[];
  readonly seed: number;
  /** the first fault of a parser ends its turn */
  readonly stops: boolean;
  /** inputs, and time, for each parser */
  readonly runs: number;
  readonly seconds: number;
  /** the size of the input that is being tried, and from byte 4 on the input; the parent reads it if the thread hangs */
  readonly current: SharedArrayBuffer;
}

export type FuzzMessage = { readonly target: string } & (
  | { readonly type: "kept"; readonly input: Uint8Array }
  | { readonly type: "fault"; readonly input: Uint8Array; readonly why: string }
  | {
      readonly type: "end";
      readonly runs: number;
      readonly corpus: number;
      readonly characters: number;
      readonly slowestMs: number;
      readonly seconds: number;
    }
);

const MAX_MS = 2000;
const MAX_BYTES = 512 * 2 ** 20;
const INTERNAL = 70;
const PLANTED: Target = { seeds: [], run: parsePlanted };
/** Inputs of a group. To ask V8 takes as long as some hundred inputs, so groups grow while they find nothing new. */
const GROUP = { least: 64, most: 4096 };

const work = workerData as FuzzWork; // as run.ts passes it
const [size, input] = [new Int32Array(work.current, 0, 1), new Uint8Array(work.current, 4)];
const coverage = new Coverage();
for (const { name, seeds } of work.targets) {
  const target = name === "planted" ? PLANTED : TARGETS[name];
  if (target === undefined) throw new Error(`there is no parser ${name}`);
  await fuzz(name, target, seeds);
}

async function fuzz(name: string, target: Target, seeds: readonly Uint8Array[]): Promise<void> {
  const started = performance.now();
  const random = fastRandom(work.seed);
  const corpus: Uint8Array[] = [];
  /** faults by their first lines: one input of each is enough */
  const known = new Set<string>();
  let [runs, slowestMs, characters] = [0, 0, 0];
  const isOver = () => work.stops && known.size > 0;
  const judge = async (bytes: Uint8Array) => {
    input.set(bytes);
    Atomics.store(size, 0, bytes.byteLength);
    runs++;
    const { why, ms } = await attempt(target, bytes);
    slowestMs = Math.max(slowestMs, ms);
    if (why === null) return;
    const place = why.split("\n").slice(0, 3).join("\n").replace(/\d+/g, "#");
    if (known.has(place)) return;
    known.add(place);
    say({ target: name, type: "fault", input: bytes, why });
  };
  const child = () => {
    // half of the inputs come from the latest eighth of the corpus
    const from = random(2) === 0 ? Math.floor((corpus.length * 7) / 8) : 0;
    const parent = corpus[from + random(corpus.length - from)]!;
    return changed(parent, corpus[random(corpus.length)]!, random);
  };

  /** Tries inputs; of those that reach new code, halves are tried until each is found. @returns whether there are some */
  const search = async (group: readonly Uint8Array[]): Promise<boolean> => {
    for (const bytes of group) if (!isOver()) await judge(bytes);
    const [only] = group;
    if (group.length === 1) {
      const fresh = coverage.take();
      if (fresh === 0) return false;
      characters += fresh;
      corpus.push(only!);
      say({ target: name, type: "kept", input: only! });
      return true;
    }
    if (coverage.fresh() === 0) return false;
    const middle = group.length >> 1;
    await search(group.slice(0, middle));
    await search(group.slice(middle));
    return true;
  };

  coverage.forget();
  for (const bytes of seeds) {
    await judge(bytes);
    characters += coverage.take();
    corpus.push(bytes);
  }
  const most = target.isSlow === true ? Math.ceil(work.runs / 10) : work.runs;
  let groupSize = GROUP.least;
  while (!isOver() && runs < most && performance.now() - started < work.seconds * 1000) {
    const group = Array.from({ length: Math.min(groupSize, most - runs) }, child);
    const isNew = await search(group);
    groupSize = isNew ? Math.max(GROUP.least, groupSize / 2) : Math.min(GROUP.most, groupSize * 2);
  }
  const seconds = Math.round((performance.now() - started) / 100) / 10;
  const end = { runs, corpus: corpus.length, characters, slowestMs: Math.round(slowestMs), seconds };
  say({ target: name, type: "end", ...end });
}

/** @returns what is wrong with the outcome, null if it is right; and the time that the processor took */
async function attempt(target: Target, bytes: Uint8Array): Promise<{ why: string | null; ms: number }> {
  const [started, before] = [process.cpuUsage(), process.memoryUsage.rss()];
  let why: string | null = null;
  try {
    await target.run(bytes);
  } catch (error) {
    if (!(error instanceof IsologitError) || error.exit === INTERNAL)
      why = error instanceof Error ? (error.stack ?? String(error)) : String(error);
  }
  const { user, system } = process.cpuUsage(started); // not by the clock: other programs take time too
  const ms = (user + system) / 1000;
  if (ms > MAX_MS) why ??= `${Math.round(ms)} ms of processor time`;
  if (process.memoryUsage.rss() - before > MAX_BYTES) why ??= "more than 512 MiB";
  return { why, ms };
}

function say(message: FuzzMessage): void {
  parentPort!.postMessage(message);
}
