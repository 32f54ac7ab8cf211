/** Copies of goldens, changed as other people's software leaves its folders. */
import { cpSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { arraysOf, golden, type StoredArray } from "./goldens.ts";

export type Arrays = ReadonlyMap<string, StoredArray>;

export const INDEX = "model.safetensors.index.json";
const SINGLE = "model.safetensors";

/** A golden without the reference beside it. */
export function copyGolden(name: string, folder: string): string {
  cpSync(golden(name), folder, { recursive: true });
  rmSync(join(folder, "reference.safetensors"), { force: true });
  return folder;
}

/** A safetensors file as Transformers writes it. */
export function saveArrays(path: string, arrays: Arrays): void {
  const header = encodeHeader(
    [...arrays].map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
    { format: "pt" },
  );
  writeFileSync(path, Buffer.concat([header, ...[...arrays.values()].map(({ bytes }) => bytes)]));
}

/** A golden whose one weight file holds what `change` makes of its tensors. */
export async function changedGolden(
  name: string,
  folder: string,
  change: (arrays: Arrays) => Arrays,
): Promise<string> {
  copyGolden(name, folder);
  const path = join(folder, SINGLE);
  saveArrays(path, change(await arraysOf(path)));
  return folder;
}

export function changeConfig(folder: string, change: Readonly<Record<string, unknown>>): string {
  const path = join(folder, "config.json");
  const config = { ...JSON.parse(readFileSync(path, "utf8")), ...change };
  writeFileSync(path, `${JSON.stringify(config, null, 2)}\n`);
  return folder;
}

export interface Sharded {
  readonly folder: string;
  readonly arrays: Arrays;
  /** file -> its tensors */
  readonly weightMap: Readonly<Record<string, string>>;
}

/** `count` files of equal numbers of tensors, named as Transformers names them; their weight_map. */
export function saveShards(folder: string, arrays: Arrays, count: number): Readonly<Record<string, string>> {
  const names = [...arrays.keys()];
  const each = Math.ceil(names.length / count);
  const weightMap: Record<string, string> = {};
  for (let i = 0; i < count; i++) {
    const part = names.slice(i * each, (i + 1) * each);
    const file = `model-${numbered(i + 1)}-of-${numbered(count)}.safetensors`;
    saveArrays(join(folder, file), new Map(part.map((name) => [name, arrays.get(name)!])));
    for (const name of part) weightMap[name] = file;
  }
  return weightMap;
}

/** A golden of one file as shards, with the index that Transformers would write. */
export async function shardedGolden(name: string, folder: string, count = 3): Promise<Sharded> {
  copyGolden(name, folder);
  const arrays = await arraysOf(join(folder, SINGLE));
  rmSync(join(folder, SINGLE));
  const weightMap = saveShards(folder, arrays, count);
  saveIndex(folder, weightMap, { total_size: sizeOf(arrays) });
  return { folder, arrays, weightMap };
}

export function saveIndex(folder: string, weightMap: object, metadata: object = {}): void {
  writeFileSync(join(folder, INDEX), `${JSON.stringify({ metadata, weight_map: weightMap }, null, 2)}\n`);
}

export function sizeOf(arrays: Arrays): number {
  return [...arrays.values()].reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
}

/** Bytes of all weight files at the top of a folder, headers included. */
export function weightFileBytes(folder: string): number {
  return readdirSync(folder)
    .filter((file) => file.endsWith(".safetensors"))
    .reduce((sum, file) => sum + statSync(join(folder, file)).size, 0);
}

/**
 * Converts, unless told otherwise without verification.
 *
 * @param path of the destination, without an ending
 * @returns the destination, all warnings as one text, and the report
 */
export async function convertForeign(source: string, path: string, to: string, options: ConvertOptions = {}) {
  const out = `${path}${to === "packed" ? ".isologit" : ""}`;
  const warnings: string[] = [];
  const report = await convert(source, out, {
    verify: "off",
    threads: 1,
    watch: (event) => void (event.type === "warning" && warnings.push(event.message)),
    ...options,
    to,
  });
  return { out, warnings: warnings.join("\n"), report };
}

function numbered(n: number): string {
  return String(n).padStart(5, "0");
}
