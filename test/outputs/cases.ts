/** Which command lines are recorded, for each kind of fixture. */
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Session } from "./session.ts";

/** Every format that is written, with the largest cut that the small fixtures allow. */
const FORMATS = [
  { id: "hf", path: "hf", flags: [] },
  { id: "packed", path: "packed.isologit", flags: [] },
  { id: "nemo2", path: "nemo2", flags: [] },
  { id: "bridge", path: "bridge", flags: ["--tp", "2"] },
  { id: "megatron", path: "megatron", flags: ["--tp", "2", "--pp", "2"] },
] as const;

const DTYPES = ["f32", "f16", "fp8-e4m3", "fp8-e5m2"] as const;
const IDS = ["--ids", "5,17,3,80,42,9,61,28"] as const;

/** The commands that only read. */
export async function survey({ run }: Session, source: string): Promise<void> {
  await run(["inspect", source, "--tensors"]);
  await run(["check", source]);
  await run(["scan", source]);
}

/** A damaged or hostile file: whatever reads it, and a conversion that must be refused or must be right. */
export async function hostile({ run, out }: Session, source: string): Promise<void> {
  await run(["check", source]);
  await run(["scan", source]);
  await run(["convert", source, out("out"), "--to", "hf"], ["--verify", "bytes"]);
}

/** What is read of a checkpoint, and computed from it. */
async function readings(session: Session, source: string): Promise<void> {
  const { run, out } = session;
  await survey(session, source);
  await run(["check", source, "--read", "--strict", "--keep-going"]);
  await run(["logits", source, "--out", out("logits.safetensors"), "--hidden"], IDS);
  await run(["generate", source, "--tokens", "6"], IDS);
  const sampled = ["--temperature", "0.8", "--top-k", "20", "--seed", "3"];
  await run(["generate", source, "--tokens", "6", ...sampled], IDS);
}

/** Another container of weights that make the round trip elsewhere: its readings, and its way into every format. */
export async function oneWay(session: Session, source: string): Promise<void> {
  const { run, out } = session;
  await readings(session, source);
  for (const { id, path, flags } of FORMATS) {
    const status = await run(["convert", source, out(path), "--to", id, ...flags]);
    if (status === 0) await run(["check", out(path), "--read"]);
  }
}

/** A checkpoint's readings, its way into every format and back. */
export async function roundTrips(session: Session, source: string): Promise<void> {
  const { run, out } = session;
  await readings(session, source);
  for (const { id, path, flags } of FORMATS) {
    const to = ["--to", id, ...flags];
    await run(["plan", source, out(path), ...to]);
    if ((await run(["convert", source, out(path), ...to])) !== 0) continue;
    await run(["inspect", out(path), "--tensors"]);
    await run(["check", out(path), "--read"]);
    await run(["verify", source, out(path)], IDS);
    await run(["verify", out(path)]);
    await run(["convert", out(path), out(`${path}-home`), "--to", "hf"], ["--verify", "bytes"]);
    await run(["diff", source, out(`${path}-home`)]);
  }
}

/** A checkpoint in other dtypes: in hf folders, and once in the format that it has. */
export async function recasts({ run, out }: Session, source: string): Promise<void> {
  for (const dtype of DTYPES) {
    const to = ["--to", "hf", "--dtype", dtype];
    await run(["plan", source, out(dtype), ...to]);
    if ((await run(["convert", source, out(dtype), ...to])) !== 0) continue;
    await run(["check", out(dtype), "--strict"]);
    await run(["verify", source, out(dtype)], IDS);
  }
  await run(["recast", source, out("recast"), "--dtype", "f32"], ["--verify", "bytes"]);
  await run(["recast", source, out("recast-fp8"), "--dtype", "fp8-e4m3", "--recipe", "all-linear"]);
}

/** What only one model is needed for: options, quantised sources, differences that must be found, wrong usage. */
export async function options({ run, out }: Session, work: string, fixtures: string): Promise<void> {
  const tiny = join(fixtures, "tiny");
  await run(["formats"]);
  await run(["convert", tiny, out("shards"), "--to", "hf", "--max-shard-size", "200KB"], ["--verify", "off"]);
  await run(["convert", tiny, out("shards"), "--to", "hf"]);
  await run(["convert", tiny, out("shards"), "--to", "hf", "--overwrite"], ["--verify", "bytes"]);
  await run(["convert", tiny, out("shards"), "--to", "hf", "--resume"], ["--verify", "bytes"]);
  await run(["convert", tiny, out("4096.isologit"), "--align", "4096"], ["--verify", "off"]);
  await run(["convert", tiny, out("pp.isologit"), "--pp", "2"]);
  await run(["convert", tiny, out("nemo2-pp"), "--to", "nemo2", "--pp", "2"]);
  await run(["convert", tiny, out("small.isologit"), "--memory", "1KiB"]);
  for (const dialect of ["modelopt", "fp8"]) {
    await run([
      "convert",
      tiny,
      out(dialect),
      "--to",
      "hf",
      "--dtype",
      "fp8-e4m3",
      "--quant-dialect",
      dialect,
    ]);
  }

  await run(["recast", tiny, out("fp8"), "--dtype", "fp8-e4m3", "--keep-ends", "0"]);
  await run(["convert", out("fp8"), out("fp8.isologit")]);
  await run(["verify", out("fp8"), out("fp8.isologit")], IDS);
  await run(["convert", out("fp8.isologit"), out("fp8-home"), "--to", "hf"]);
  await run(["convert", out("fp8"), out("fp8-bf16"), "--to", "hf", "--dtype", "bf16"]);
  await run(["convert", out("fp8"), out("fp8-nemo2"), "--to", "nemo2"]);
  await run(["convert", out("fp8"), out("fp8-nemo2-bf16"), "--to", "nemo2", "--dtype", "bf16"]);
  await run(["verify", tiny, out("fp8"), "--kl", "0"], IDS);
  await run(["verify", tiny, out("fp8"), "--kl", "1", "--top1", "0.1"], IDS);

  for (const name of ["tiny", "moe"]) {
    const source = join(fixtures, name);
    const damaged = flipBits(work, source, out(`${name}-flipped`));
    await run(["verify", source, damaged]);
    await run(["verify", source, damaged, "--verify", "bytes"]);
    await run(["diff", source, damaged]);
    await run(["convert", source, out(`${name}.isologit`)], ["--verify", "bytes"]);
    await run(["verify", flipBits(work, out(`${name}.isologit`), out(`${name}-flipped.isologit`))]);
    await run(["verify", source, "--reference", join(source, "reference.safetensors")]);
  }
  await run(["verify", tiny, join(fixtures, "tiny-t5")]);
  await run(["diff", tiny, join(fixtures, "tiny-t5")]);
  await run(["verify", tiny, join(fixtures, "moe")]);
  await run(["diff", tiny, join(fixtures, "moe")]);
  await run(["verify", tiny]);

  await run(["convert", "missing", out("missing"), "--to", "hf"]);
  await run(["convert", tiny, out("unknown"), "--to", "gguf"]);
  await run(["convert", tiny]);
  await run(["check", tiny, "--unknown"]);
  await run(["unknown"]);
}

/** Copies a checkpoint and flips one bit near its middle and one near its end, in the weights. */
function flipBits(work: string, from: string, to: string): string {
  cpSync(join(work, from), join(work, to), { recursive: true });
  const folder = join(work, to, "model.safetensors");
  const file = existsSync(folder) ? folder : join(work, to);
  const bytes = readFileSync(file);
  bytes[bytes.byteLength >> 1]! ^= 0x10;
  bytes[Math.floor(bytes.byteLength * 0.9)]! ^= 0x40;
  writeFileSync(file, bytes);
  return to;
}
