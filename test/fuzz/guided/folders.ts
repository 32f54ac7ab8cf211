/** Checkpoints of fixtures in memory, with one file replaced by the bytes that a fuzzer made. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Format } from "../../../formats/format.ts";
import { formats } from "../../../formats/index.ts";
import { matchModel, readScaleValues } from "../../../src/checkpoint/load.ts";
import type { Checkpoint } from "../../../src/core/checkpoint.ts";
import { memoryStore } from "../../support/memory-store.ts";

/** The same in the sources and in dist/. */
export const FIXTURES = join(process.cwd(), "fixtures");

export const fixture = (path: string): Uint8Array => new Uint8Array(readFileSync(join(FIXTURES, path)));

/** Every file of a folder by its path in it. */
export function filesIn(folder: string): ReadonlyMap<string, Uint8Array> {
  const root = join(FIXTURES, folder);
  const paths = readdirSync(root, { recursive: true, encoding: "utf8" });
  return new Map(
    paths
      .map((path) => path.replaceAll("\\", "/"))
      .filter((path) => statSync(join(root, path)).isFile())
      .map((path) => [path, new Uint8Array(readFileSync(join(root, path)))]),
  );
}

/** Reads a checkpoint as every command begins: format, headers, and which tensor is which role. */
export async function load(files: ReadonlyMap<string, Uint8Array>, by?: Format): Promise<Checkpoint> {
  const store = memoryStore("m", files);
  let checkpoint: Checkpoint | undefined;
  for (const format of by === undefined ? formats : [by]) {
    if ((await format.detect(store)) === "no") continue;
    checkpoint ??= await format.read(store, { makeFiles: true });
  }
  checkpoint ??= await (by ?? formats[0]!).read(store, { makeFiles: true });
  await readScaleValues(matchModel(checkpoint, {}));
  return checkpoint;
}
