/** `model.safetensors.index.json`: which weight file contains which tensor. */
import type { Remark } from "../../src/core/checkpoint.ts";
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";
import { isJsonObject, parseJsonObject, stringifyJson } from "../../src/core/json.ts";
import { safePath } from "../../src/core/safe-path.ts";

/** A tensor takes 0.3 kB, so this is enough for several times 100,000 experts. */
export const MAX_INDEX_BYTES = 100_000_000;

export interface WeightIndex {
  /** tensor -> name of its weight file */
  readonly fileOf: ReadonlyMap<string, string>;
  /** weight files, sorted, without repetition */
  readonly files: readonly string[];
  /** bytes of all tensors without headers; null if the index does not say */
  readonly totalBytes: number | null;
  /** the first path that had to be changed to a plain file name; null if there is none */
  readonly rewritten: string | null;
}

/** The folder of an index: its absolute paths. */
interface IndexFolder {
  readonly roots?: readonly string[];
}

/** @throws HEADER_INVALID, DUPLICATE_NAME, and PATH_UNSAFE for a file outside the folder */
export function parseIndex(bytes: Uint8Array, file: string, { roots = [] }: IndexFolder = {}): WeightIndex {
  const json = parseJsonObject(bytes, { code: "HEADER_INVALID", file });
  const map = json.weight_map;
  if (!isJsonObject(map)) {
    throw new IsologitError("HEADER_INVALID", "weight_map is not a map from tensors to files", { file });
  }
  const fileOf = new Map<string, string>();
  let rewritten: string | null = null;
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string") {
      throw new IsologitError("HEADER_INVALID", "weight_map does not name a file", { file, tensor });
    }
    const path = relativePath(shard, roots);
    if (path !== shard) rewritten ??= shard;
    fileOf.set(tensor, safeShard(path, { file, tensor }));
  }
  const total = isJsonObject(json.metadata) ? json.metadata.total_size : undefined;
  return {
    fileOf,
    files: [...new Set(fileOf.values())].sort(),
    totalBytes: typeof total === "number" ? total : null,
    rewritten,
  };
}

/** Loaders join the path of the folder and the path in the index, so `./x` and FOLDER/x both mean `x`. */
function relativePath(shard: string, roots: readonly string[]): string {
  const root = roots.find((folder) => shard.startsWith(`${folder}/`));
  const path = root === undefined ? shard : shard.slice(root.length + 1);
  return path.replace(/^(\.\/+)+/, "");
}

function safeShard(path: string, at: ErrorLocation): string {
  if (!path.startsWith("/")) return safePath(path, at);
  const message = `weight_map names ${JSON.stringify(path)}, an absolute path that is not in this folder`;
  const next = "write file names without a folder into weight_map if the files are beside the index";
  throw new IsologitError("PATH_UNSAFE", message, at, { next });
}

/**
 * Compares the index with the headers of the files, both as tensor -> file.
 *
 * @returns remarks on differences that every loader accepts
 * @throws INDEX_MISMATCH
 */
export function checkIndex(
  index: WeightIndex,
  found: ReadonlyMap<string, string>,
  bytes: number,
  file: string,
): readonly Remark[] {
  const lost = [...index.fileOf.keys()].filter((name) => !found.has(name));
  if (lost.length > 0) {
    const message = `${firstNames(lost)} in the index but in no file`;
    throw new IsologitError("INDEX_MISMATCH", message, { file, tensor: lost[0]! });
  }
  for (const [tensor, shard] of index.fileOf) {
    if (found.get(tensor) !== shard) {
      const message = `the index says ${shard}, but it is in ${found.get(tensor)}`;
      throw new IsologitError("INDEX_MISMATCH", message, { file, tensor });
    }
  }
  const remarks: Remark[] = [];
  const extra = [...found.keys()].filter((name) => !index.fileOf.has(name));
  if (extra.length > 0) {
    const message = `${firstNames(extra)} in ${found.get(extra[0]!)} but not in the index: read, as loaders of whole files do`;
    remarks.push({ rule: "index-omits", severity: "warning", at: { file, tensor: extra[0]! }, message });
  }
  if (index.totalBytes !== null && index.totalBytes !== bytes) {
    const message = `total_size is ${index.totalBytes} bytes, but the tensors have ${bytes}: loaders ignore it`;
    remarks.push({ rule: "index-total", severity: "warning", at: { file }, message });
  }
  if (index.rewritten !== null) {
    const message = `weight_map names ${JSON.stringify(index.rewritten)}, but all loaders find only plain file names`;
    remarks.push({ rule: "index-path", severity: "warning", at: { file }, message });
  }
  return remarks;
}

export function firstNames(names: readonly string[]): string {
  return `${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
}

/** The index as Transformers writes it: sorted names, two spaces of indentation, a newline at the end. */
export function encodeIndex(fileOf: ReadonlyMap<string, string>, totalBytes: number): Uint8Array {
  const sorted = [...fileOf].sort(([a], [b]) => (a < b ? -1 : 1));
  const index = { metadata: { total_size: totalBytes }, weight_map: Object.fromEntries(sorted) };
  return new TextEncoder().encode(`${stringifyJson(index)}\n`);
}
