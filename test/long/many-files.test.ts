/** A checkpoint of more files than the process may have open; ISOLOGIT_SHARDS is a number of layers, each with some six files. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { shell } from "../support/program.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
const LAYERS = Number(process.env.ISOLOGIT_SHARDS ?? 64);

it("more shards than the process may have open files are read and written", async () => {
  const shards = await smallModel(join(work, "shards"), "M".repeat(LAYERS), { vocab_size: 8 }, 1_000);
  const count = readdirSync(shards).length;
  expect(count).toBeGreaterThan(256);
  const written = join(work, "written");
  const options = "--to hf --dtype f32 --max-shard-size 1KB --verify off --threads 1";
  const { status, stderr } = await shell(`ulimit -n 256; isologit convert ${shards} ${written} ${options}`);
  expect([status, stderr]).toEqual([0, expect.any(String)]);
  expect(readdirSync(written).filter((name) => name.endsWith(".safetensors")).length).toBeGreaterThan(256);
});
