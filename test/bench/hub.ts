/**
 * `download` over loopback beside plain `curl` of the same files from the same server, in turns. Both write to disk;
 * ours also digests, syncs, and links.
 *
 *   node dist/test/bench/hub.js [--rounds 5] [--files 4] [--megabytes 256] [--work FOLDER]
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { fakeHub, put } from "../support/hub/fake.ts";
import { contentAt } from "../support/hub/repository.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    files: { type: "string", default: "4" },
    megabytes: { type: "string", default: "256" },
    work: { type: "string", default: tmpdir() },
  },
});
const program = fileURLToPath(new URL("../../bin/isologit.js", import.meta.url));
const work = join(values.work, "isologit-bench-hub");
const REPO = "owner/model";
const bytes = Number(values.files) * Number(values.megabytes) * 1e6;

await using hub = await fakeHub();
rmSync(work, { recursive: true, force: true });
mkdirSync(join(work, "source"), { recursive: true });
const names = Array.from({ length: Number(values.files) }, (_, i) => `model-${i}.safetensors`);
put(hub, REPO, Object.fromEntries(names.map((name) => [name, contentAt(randomFile(name))])));

const env = { PATH: process.env.PATH, HF_ENDPOINT: hub.url, HF_HOME: join(work, "home") };
const urls = names.flatMap((name) => [
  "-o",
  join(work, "curl", name),
  `${hub.url}/${REPO}/resolve/main/${name}`,
]);
const CURL = ["curl", "-s", "-L", "--create-dirs", "--fail", "--parallel", "--parallel-max", "8", ...urls];
const OURS = [process.execPath, program, "download", REPO, "--quiet"];

const times = { curl: [] as number[], ours: [] as number[] };
for (let round = 0; round < Number(values.rounds); round++) {
  times.curl.push(await timed([...CURL], join(work, "curl")));
  times.ours.push(await timed(OURS, join(work, "home")));
}
const rate = (seconds: number) => `${(bytes / 1e6 / seconds).toFixed(0)} MB/s`;
const ratios = times.curl.map((curl, i) => curl / times.ours[i]!).sort((a, b) => a - b);
console.log(
  `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores; Node ${process.version}; ${bytes / 1e6} MB in ${names.length} files, loopback, synced`,
);
console.log(`curl      ${times.curl.map(rate).join("  ")}`);
console.log(`download  ${times.ours.map(rate).join("  ")}`);
console.log(
  `download / curl: ${ratios[Math.floor(ratios.length / 2)]!.toFixed(2)} (${ratios[0]!.toFixed(2)}-${ratios.at(-1)!.toFixed(2)}), aim >= 0.8`,
);
rmSync(work, { recursive: true, force: true });

function randomFile(name: string): string {
  const path = join(work, "source", name);
  const file = openSync(path, "w");
  const block = randomBytes(1e6);
  for (let i = 0; i < Number(values.megabytes); i++) {
    block.writeUInt32LE(i, 0);
    writeSync(file, block);
  }
  closeSync(file);
  return path;
}

async function timed([file, ...args]: readonly string[], out: string): Promise<number> {
  rmSync(out, { recursive: true, force: true });
  await run("sync", []);
  const started = performance.now();
  await run(file!, args);
  await run("sync", ["-f", out]);
  return (performance.now() - started) / 1000;
}

async function run(file: string, args: readonly string[]): Promise<void> {
  const child = spawn(file, args, { stdio: ["ignore", "ignore", "inherit"], env });
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  if (code !== 0) throw new Error(`${file} exited with ${code}`);
}
