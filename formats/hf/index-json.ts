/** `model.safetensors.index.json`: which of several weight files holds which tensor. */
import type { Remark } from "../../src/core/checkpoint.ts";
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";
import { isJsonObject, parseJsonObject, stringifyJson } from "../../src/core/json.ts";
import { safePath } from "../../src/core/safe-path.ts";

/** 0.3 kB a tensor, so that a model with 100,000 experts still fits many times over. */
export const MAX_INDEX_BYTES = 100_000_000;

export interface WeightIndex {
  /** tensor -> name of its weight file */
  readonly fileOf: ReadonlyMap<string, string>;
  /** weight files, sorted, each once */
  readonly files: readonly string[];
  /** bytes of all tensors, headers aside, where the index tells */
  readonly totalBytes: number | null;
  /** the first path that had to be spelt anew to lead into the folder; null: none had to be */
  readonly respelt: string | null;
}

/** What is known of the folder around an index: its absolute paths. */
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
  let respelt: string | null = null;
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string") {
      throw new IsologitError("HEADER_INVALID", "weight_map does not name a file", { file, tensor });
    }
    const path = relativePath(shard, roots);
    if (path !== shard) respelt ??= shard;
    fileOf.set(tensor, safeShard(path, { file, tensor }));
  }
  const total = isJsonObject(json.metadata) ? json.metadata.total_size : undefined;
  return {
    fileOf,
    files: [...new Set(fileOf.values())].sort(),
    totalBytes: typeof total === "number" ? total : null,
    respelt,
  };
}

/** Loaders join a folder's path and what the index says: `./x`, and the folder's own path before `x`, lead to `x`. */
function relativePath(shard: string, roots: readonly string[]): string {
  const root = roots.find((one) => shard.startsWith(`${one}/`));
  const path = root === undefined ? shard : shard.slice(root.length + 1);
  return path.replace(/^(\.\/+)+/, "");
}

function safeShard(path: string, at: ErrorLocation): string {
  if (!path.startsWith("/")) return safePath(path, at);
  const message = `weight_map names ${JSON.stringify(path)}, an absolute path that is not in this folder`;
  const next = "write file names without a folder into weight_map, where the files lie beside the index";
  throw new IsologitError("PATH_UNSAFE", message, at, { next });
}

/**
 * What the index says against what the files' headers say, both as tensor -> file.
 *
 * @returns what no loader minds
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
      const message = `the index says ${shard}, but it lies in ${found.get(tensor)}`;
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
    const message = `total_size is ${index.totalBytes} bytes, but the tensors have ${bytes}: no loader looks at it`;
    remarks.push({ rule: "index-total", severity: "warning", at: { file }, message });
  }
  if (index.respelt !== null) {
    const message = `weight_map names ${JSON.stringify(index.respelt)}, where every loader finds a plain file name only`;
    remarks.push({ rule: "index-path", severity: "warning", at: { file }, message });
  }
  return remarks;
}

export function firstNames(names: readonly string[]): string {
  return `${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
}

/** The index as Transformers writes it: names sorted, two spaces, a newline at the end. */
export function encodeIndex(fileOf: ReadonlyMap<string, string>, totalBytes: number): Uint8Array {
  const sorted = [...fileOf].sort(([a], [b]) => (a < b ? -1 : 1));
  const index = { metadata: { total_size: totalBytes }, weight_map: Object.fromEntries(sorted) };
  return new TextEncoder().encode(`${stringifyJson(index)}\n`);
}
