/**
 * Speed and memory of the built program: conversions beside `cp -r` of the same bytes, first logits beside reading
 * them once, each in the same run; starts beside an empty node; and the speed of the kernels alone.
 *
 *   npm run bench -- [--preset m2,m6] [--rounds 3] [--items cp,keep,…] [--work FOLDER] [--memory 256MiB] [--cache warm]
 *   npm run bench -- --preset 8B --size 16GB --items cp,bare,keep,fp8,nemo2,bytes,read,verify --work FOLDER
 *
 * The second line takes a published model (see fixtures/generate/synthesize.ts), with as many of its layers as fit into the size. The
 * model and the copies that items need (packed, nemo2, GGUF, FP8) stay in the work folder for the next run: with all items it needs room
 * for six times the size.
 *
 * Every figure includes syncing to disk. As root on Linux the page cache is dropped before each run; elsewhere, and with
 * `--cache warm`, which reads the source before each run, the figures are warm, and say so. Only ratios within a run mean anything: a virtual machine's disk changes by the hour.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { bytesIn, isPreset, preset, synthesize } from "../../fixtures/generate/synthesize.ts";
import { cutTimes } from "./cuts.ts";
import { decodeTimes } from "./decode.ts";
import { encoderSpeeds } from "./encoders.ts";
import { importanceTimes, spread } from "./importance.ts";
import { kernelSpeeds } from "./kernels.ts";
import { absent, llama, llamaQuantize, torchCheckpoint, torchRecast, transformers } from "./peers.ts";
import { startTimes } from "./start.ts";

const { values } = parseArgs({
  options: {
    preset: { type: "string", default: "m2,m6" },
    size: { type: "string" },
    rounds: { type: "string", default: "3" },
    items: {
      type: "string",
      default:
        "start,kernels,encoders,decode,importance,cuts,cp,bare,loop,keep,unpack,fp8,torch,nemo2,unnemo,dcp,bytes,read,logits,calibrate,verify,verify64,verifyfp8,transformers,llama,quantize4,q4_k_m,quantize8,q8_0",
    },
    work: { type: "string", default: tmpdir() },
    memory: { type: "string", default: "256MiB" },
    cache: { type: "string", default: "cold" },
  },
});

const program = fileURLToPath(new URL("../../bin/isologit.js", import.meta.url));
const loop = fileURLToPath(new URL("loop.js", import.meta.url));

/** What is measured: a command over a source that writes OUT, which is then synced. */
interface Item {
  readonly title: string;
  readonly aim?: string;
  /** what the source must also exist as, beside it */
  readonly needs?: keyof typeof COPIES;
  command(source: string, out: string): readonly string[];
}

/** Other forms of a source: where they are, and the command that makes them. */
const COPIES = {
  packed: (source: string) => `${source}.isologit`,
  nemo2: (source: string) => `${source}-nemo2`,
  gguf: (source: string) => `${source}-bf16.gguf`,
  fp8: (source: string) => `${source}-fp8`,
};

const copy = (form: string, source: string, path: string) =>
  form === "fp8" ? recastToFp8(source, path) : ours("convert", source, path, "--to", form, "--verify", "off");

const recastToFp8 = (source: string, out: string) =>
  ours("recast", source, out, "--dtype", "fp8-e4m3", "--keep-ends", "0", "--verify", "off");

const IMPORTANCE_MEBIBYTES = 512;

const memory = ["--memory", values.memory];
const ours = (...args: readonly string[]) => [
  process.execPath,
  program,
  ...args,
  ...memory,
  "--json",
  "--quiet",
];
const readWeights = (source: string) => ["sh", "-c", 'cat "$0"/*.safetensors > /dev/null', source];
/** Each part's first item is what the others are compared to. */
const FILES: Readonly<Record<string, Item>> = {
  cp: { title: "cp -r", command: (source, out) => ["cp", "-r", source, out] },
  bare: { title: "read the weights once", command: readWeights },
  loop: {
    title: "read and write, nothing else: the floor",
    command: (source, out) => [process.execPath, loop, source, out],
  },
  keep: {
    title: "convert to packed, --verify off",
    aim: "<= 0.95 x cp",
    command: (source, out) => ours("convert", source, out, "--to", "packed", "--verify", "off"),
  },
  unpack: {
    title: "packed back to hf, --verify off",
    needs: "packed",
    command: (source, out) => ours("convert", COPIES.packed(source), out, "--to", "hf", "--verify", "off"),
  },
  fp8: {
    title: "recast to fp8-e4m3, --verify off",
    aim: "<= 0.85 x cp, 0.3 x torch",
    command: recastToFp8,
  },
  torch: {
    title: "the same recast by torch, in blocks of rows",
    command: torchRecast,
  },
  nemo2: {
    title: "convert to nemo2, --verify off",
    aim: "<= 1.0 x cp, <= 400 MiB",
    command: (source, out) => ours("convert", source, out, "--to", "nemo2", "--verify", "off"),
  },
  unnemo: {
    title: "nemo2 back to hf, --verify off",
    aim: "<= 1.3 x cp, <= 400 MiB",
    needs: "nemo2",
    command: (source, out) => ours("convert", COPIES.nemo2(source), out, "--to", "hf", "--verify", "off"),
  },
  dcp: {
    title: "torch.distributed.checkpoint, hf to nemo2",
    aim: ">= 2 x ours",
    command: torchCheckpoint,
  },
  bytes: {
    title: "verify hf packed, --verify bytes",
    needs: "packed",
    command: (source) => ours("verify", source, COPIES.packed(source), "--verify", "bytes"),
  },
};
const FIRST_LOGITS: Readonly<Record<string, Item>> = {
  read: { title: "read the weights once", command: readWeights },
  logits: {
    title: "logits, 64 tokens",
    aim: "<= 2 x read, 0.4 x Transformers, 1.0 x llama.cpp; 600 MiB",
    command: (source, out) => ours("logits", source, "--out", out, "--tokens", "64"),
  },
  calibrate: {
    title: "plan --calibrate, 64 tokens",
    aim: "<= 1.2 x the row above",
    command: (source, out) =>
      ours("plan", source, out, "--dtype", "fp8-e4m3", "--keep-ends", "0", "--calibrate"),
  },
  verify: {
    title: "verify hf packed, all rungs",
    aim: "<= 3 x read: 1.5 x both sides",
    needs: "packed",
    command: (source) => ours("verify", source, COPIES.packed(source)),
  },
  verify64: {
    title: "verify hf packed, all rungs, 64 tokens",
    needs: "packed",
    command: (source) => ours("verify", source, COPIES.packed(source), "--tokens", "64"),
  },
  verifyfp8: {
    title: "verify hf and its fp8-e4m3 recast, all rungs",
    aim: "<= 3.75 x read: 2.5 x both sides",
    needs: "fp8",
    command: (source) => ours("verify", source, COPIES.fp8(source)),
  },
  transformers: { title: "Transformers, bf16, 64 tokens", command: transformers },
  llama: {
    title: "llama.cpp, bf16, 64 tokens",
    aim: "logits <= 1.0 x this",
    needs: "gguf",
    command: (source) => llama(COPIES.gguf(source), availableParallelism()),
  },
};
const kindOfFile = (kind: string): Item => ({
  title: `convert hf to gguf ${kind}, --verify off`,
  aim: "<= 0.7 x llama-quantize",
  command: (source, out) => ours("convert", source, out, "--to", "gguf", "--dtype", kind, "--verify", "off"),
});
const quantize = (kind: string): Item => ({
  title: `llama-quantize ${kind}, from BF16`,
  needs: "gguf",
  command: (source, out) => llamaQuantize(COPIES.gguf(source), out, kind, availableParallelism()),
});
const FOUR_BITS = { quantize4: quantize("q4_k_m"), q4_k_m: kindOfFile("q4_k_m") };
const EIGHT_BITS = { quantize8: quantize("q8_0"), q8_0: kindOfFile("q8_0") };
const PARTS = [FILES, FIRST_LOGITS, FOUR_BITS, EIGHT_BITS];

/** What a child used, 0 where the system does not tell. */
interface Used {
  /** user and system */
  readonly processorSeconds: number;
  /** most resident bytes */
  readonly peakBytes: number;
}

interface Run extends Used {
  readonly seconds: number;
}

async function main(): Promise<void> {
  const wanted = values.items.split(",");
  const known = [
    "start",
    "kernels",
    "encoders",
    "decode",
    "importance",
    "cuts",
    ...PARTS.flatMap(Object.keys),
  ];
  for (const id of wanted) if (!known.includes(id)) throw new Error(`no item ${id}; there are ${known}`);
  const cold = values.cache !== "warm" && (await dropCaches());
  const [cpu] = cpus();
  console.log(
    `${cpu?.model.trim()}, ${availableParallelism()} cores; Node ${process.version}; cache ${cold ? "cold" : "WARM"}; synced`,
  );
  console.log(`rounds ${values.rounds}, --memory ${values.memory}, work in ${values.work}`);
  if (wanted.includes("start")) startTimes(5 * Number(values.rounds));
  if (wanted.includes("kernels")) await kernelSpeeds(3 * Number(values.rounds));
  if (wanted.includes("encoders")) await encoderSpeeds(Number(values.rounds));
  if (wanted.includes("decode")) await decodeTimes(10 * Number(values.rounds), values.work);
  if (wanted.includes("importance"))
    await importanceTimes(program, Number(values.rounds), values.work, IMPORTANCE_MEBIBYTES);
  if (wanted.includes("cuts"))
    await cutTimes(program, Number(values.rounds), values.work, IMPORTANCE_MEBIBYTES);
  for (const part of PARTS) {
    const items = Object.entries(part).flatMap(([id, item]) =>
      wanted.includes(id) ? [{ id, ...item }] : [],
    );
    if (items.length > 0) await bench(items);
  }
}

async function bench(all: readonly (Item & { id: string })[]): Promise<void> {
  const { size } = values;
  for (const name of values.preset.split(",")) {
    if (!isPreset(name)) throw new Error(`no preset ${name}`);
    const title = size === undefined ? name : `${name}-${size}`;
    const source = join(values.work, `isologit-bench-${title}`);
    const maxBytes = size === undefined ? undefined : bytesIn(size);
    if (!existsSync(join(source, "config.json")))
      await synthesize(source, { ...preset(name, maxBytes), seed: 0 });
    const items = all.filter(({ id }) => absent(id) === undefined);
    for (const { id, title } of all) {
      const why = absent(id);
      if (why !== undefined) console.log(`\nskipped: ${title}: ${why}`);
    }
    if (items.length === 0) continue;
    for (const [form, pathOf] of Object.entries(COPIES)) {
      const path = pathOf(source);
      if (items.some(({ needs }) => needs === form) && !existsSync(path)) await run(copy(form, source, path));
    }
    const runs = new Map<string, Run[]>(items.map(({ id }) => [id, []]));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const item of items) runs.get(item.id)!.push(await measured(item, source));
    }
    print(title, items, runs);
  }
}

async function measured(item: Item, source: string): Promise<Run> {
  const out = join(values.work, "isologit-bench-out");
  for (const left of [out, `${out}.partial`]) await rm(left, { recursive: true, force: true });
  await run(["sync"]);
  await prefault();
  await (values.cache === "warm" ? run(readWeights(source)) : dropCaches());
  const started = performance.now();
  const used = await run(item.command(source, out));
  if (existsSync(out)) await run(["sync", "-f", out]);
  const seconds = (performance.now() - started) / 1000;
  await rm(out, { recursive: true, force: true });
  return { seconds, ...used };
}

/** Runs a child to its end. */
async function run(command: readonly string[]): Promise<Used> {
  const [file, ...args] = command;
  const child = spawn(file!, args, { stdio: ["ignore", "ignore", "inherit"] });
  const used = watchChild(child);
  const code = await new Promise<number | null>((resolve, reject) =>
    child.on("error", reject).on("close", resolve),
  );
  if (code !== 0) throw new Error(`${command.join(" ")} exited with ${code}`);
  return used();
}

/** Linux counts processor time in these. */
const TICKS_PER_SECOND = 100;

/** Reads /proc while the child lives. Both figures only grow, so that the last reading is enough; it is 20 ms old at most. */
function watchChild(child: ChildProcess): () => Used {
  const used = { processorSeconds: 0, peakBytes: 0 };
  const textOf = (name: string) => readFile(`/proc/${child.pid}/${name}`, "utf8").catch(() => "");
  const read = async () => {
    const [status, stat] = [await textOf("status"), await textOf("stat")];
    const peakBytes = 1024 * Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0);
    // after the name in brackets: user and system time of the process, then of its children that have ended
    const times = stat
      .slice(stat.lastIndexOf(")") + 2)
      .split(" ")
      .slice(11, 15);
    const processorSeconds = times.reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND;
    used.peakBytes = Math.max(used.peakBytes, peakBytes);
    used.processorSeconds = Math.max(used.processorSeconds, processorSeconds);
  };
  const timer = setInterval(read, 20);
  child.on("close", () => clearInterval(timer));
  return () => used;
}

async function dropCaches(): Promise<boolean> {
  return writeFile("/proc/sys/vm/drop_caches", "3").then(
    () => true,
    () => false,
  );
}

/** In a virtual machine memory that lies free goes back to the host; the next user would pay for its return. */
async function prefault(): Promise<void> {
  if (!existsSync("/dev/shm")) return;
  const path = `/dev/shm/isologit-bench-${process.pid}`;
  const mebibytes = Math.floor(Math.min(8 * 2 ** 30, freemem() / 2) / 2 ** 20);
  await run(["dd", "if=/dev/zero", `of=${path}`, "bs=1M", `count=${mebibytes}`, "status=none"]).catch(
    () => 0,
  );
  await rm(path, { force: true });
}

function print(
  name: string,
  items: readonly (Item & { id: string })[],
  runs: ReadonlyMap<string, readonly Run[]>,
): void {
  const base = runs.get(items[0]!.id)!;
  console.log(
    `\n${name.padEnd(42)}wall s (min-max)      / ${items[0]!.id.padEnd(4)} (min-max)  processor s (min-max)  peak MiB  aim`,
  );
  for (const { id, title, aim } of items) {
    const mine = runs.get(id)!;
    const wall = mine.map(({ seconds }) => seconds);
    const ratio = mine.map(({ seconds }, i) => seconds / base[i]!.seconds);
    const processor = mine.map(({ processorSeconds }) => processorSeconds);
    const peak = Math.max(...mine.map(({ peakBytes }) => peakBytes)) / 2 ** 20;
    const columns = [
      ...[title.padEnd(42), spread(wall).padEnd(22), spread(ratio).padEnd(18), spread(processor).padEnd(22)],
      ...[peak.toFixed(0).padStart(8), "  ", aim ?? ""],
    ];
    console.log(columns.join(""));
  }
}

await main();
