/** `model.safetensors.index.json`: which of several weight files holds which tensor. */
import { IsologitError } from "../../src/core/errors.ts";
import { isJsonObject, parseJsonObject, stringifyJson } from "../../src/core/json.ts";
import { safePath } from "../../src/core/path.ts";

/** 0.3 kB a tensor, so that a model with 100,000 experts still fits many times over. */
export const MAX_INDEX_BYTES = 100_000_000;

export interface ShardIndex {
  /** tensor -> name of its weight file */
  readonly fileOf: ReadonlyMap<string, string>;
  /** weight files, sorted, each once */
  readonly files: readonly string[];
  /** bytes of all tensors, headers aside, where the index tells */
  readonly totalBytes: number | null;
}

/** @throws HEADER_INVALID, DUPLICATE_NAME, and PATH_UNSAFE for a file outside the folder */
export function parseIndex(bytes: Uint8Array, file: string): ShardIndex {
  const json = parseJsonObject(bytes, { code: "HEADER_INVALID", file });
  const map = json.weight_map;
  if (!isJsonObject(map)) {
    throw new IsologitError("HEADER_INVALID", "weight_map is not a map from tensors to files", { file });
  }
  const fileOf = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string") {
      throw new IsologitError("HEADER_INVALID", "weight_map does not name a file", { file, tensor });
    }
    fileOf.set(tensor, safePath(shard, { file, tensor }));
  }
  const total = isJsonObject(json.metadata) ? json.metadata.total_size : undefined;
  return {
    fileOf,
    files: [...new Set(fileOf.values())].sort(),
    totalBytes: typeof total === "number" ? total : null,
  };
}

/** What the index says against what the files' headers say, both as tensor -> file. @throws INDEX_MISMATCH */
export function checkIndex(
  index: ShardIndex,
  found: ReadonlyMap<string, string>,
  bytes: number,
  file: string,
): void {
  const lost = [...index.fileOf.keys()].filter((name) => !found.has(name));
  const extra = [...found.keys()].filter((name) => !index.fileOf.has(name));
  if (lost.length > 0 || extra.length > 0) {
    const said = lost.length > 0 ? `${firstOf(lost)} in the index but in no file` : "";
    const held = extra.length > 0 ? `${firstOf(extra)} in a file but not in the index` : "";
    const tensor = (lost[0] ?? extra[0])!;
    throw new IsologitError("INDEX_MISMATCH", [said, held].filter(Boolean).join("; "), { file, tensor });
  }
  for (const [tensor, shard] of index.fileOf) {
    if (found.get(tensor) !== shard) {
      const message = `the index says ${shard}, but it lies in ${found.get(tensor)}`;
      throw new IsologitError("INDEX_MISMATCH", message, { file, tensor });
    }
  }
  if (index.totalBytes !== null && index.totalBytes !== bytes) {
    const message = `total_size is ${index.totalBytes} bytes; the tensors have ${bytes}`;
    throw new IsologitError("INDEX_MISMATCH", message, { file });
  }
}

function firstOf(names: readonly string[]): string {
  return `${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
}

/** The index as Transformers writes it: names sorted, two spaces, a newline at the end. */
export function encodeIndex(fileOf: ReadonlyMap<string, string>, totalBytes: number): Uint8Array {
  const sorted = [...fileOf].sort(([a], [b]) => (a < b ? -1 : 1));
  const index = { metadata: { total_size: totalBytes }, weight_map: Object.fromEntries(sorted) };
  return new TextEncoder().encode(`${stringifyJson(index)}\n`);
}
