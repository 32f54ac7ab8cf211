/** Differences beside the weights: settings, config keys, side files. */

import type { Checkpoint } from "../core/checkpoint.ts";
import { canonicalJson, sha256 } from "../core/hash.ts";
import { Sources } from "../core/read.ts";
import type { MatchedModel } from "../families/model.ts";
import { keysThatDiffer } from "../side-files/compare.ts";
import { isOwnIndex } from "../side-files/read.ts";
import type { DiffedSidecar, DiffReport } from "./report.ts";

/**
 * Settings that differ. If both sides have one dialect, also other config keys that differ; a key that no forward pass depends on
 * counts only where both sides have it. Two spellings of one setting are equal.
 */
export function diffConfigs(a: MatchedModel, b: MatchedModel): DiffReport["config"] {
  const unlike = (left: Readonly<Record<string, unknown>>, right: Readonly<Record<string, unknown>>) =>
    keysThatDiffer(left, right).map((key) => ({ key, a: jsonValue(left[key]), b: jsonValue(right[key]) }));
  const settings = unlike(a.settings, b.settings);
  if (a.dialect !== b.dialect) return settings;
  const { dialect } = a;
  const keys = unlike(a.checkpoint.config, b.checkpoint.config).filter(({ key, a: left, b: right }) => {
    if (dialect.isSettingKey?.(key)) return settings.length > 0;
    return !dialect.isUnreadKey?.(key) || (left !== null && right !== null);
  });
  // A setting that differs is reported by its config key.
  return [...(keys.length > 0 ? [] : settings), ...keys];
}

/** A value for JSON; `Infinity` becomes a string. */
function jsonValue(value: unknown): unknown {
  return value === undefined ? null : JSON.parse(canonicalJson(value as Parameters<typeof canonicalJson>[0]));
}

/** Limit of a file whose lines are compared; a tokenizer of 131,072 tokens has 17 MB. */
const MAX_TEXT_BYTES = 1024 * 1024;
const MAX_LINES = 20;

/**
 * Side files that differ, without config.json and files that depend on the format. A file that one side lacks counts only
 * where both have one dialect: other software has other files.
 */
export async function diffSidecars(
  { checkpoint: a, dialect }: MatchedModel,
  { checkpoint: b, dialect: other }: MatchedModel,
): Promise<readonly DiffedSidecar[]> {
  await using left = new Sources(a.store);
  await using right = new Sources(b.store);
  const paths = new Set([...a.sidecars, ...b.sidecars].map(({ path }) => path));
  const diffed: DiffedSidecar[] = [];
  for (const path of [...paths].sort()) {
    if (path === "config.json") continue;
    const [bytesA, bytesB] = [await bytesOf(path, a, left), await bytesOf(path, b, right)];
    const [x, y] = [bytesA === null ? null : sha256(bytesA), bytesB === null ? null : sha256(bytesB)];
    if (x === y || (dialect !== other && (x === null || y === null))) continue;
    const lines = bytesA === null || bytesB === null ? null : linesApart(bytesA, bytesB);
    diffed.push({ path, a: x, b: y, ...(lines !== null && { lines }) });
  }
  return diffed;
}

async function bytesOf(path: string, checkpoint: Checkpoint, sources: Sources): Promise<Uint8Array | null> {
  if (isOwnIndex(path, checkpoint)) return null;
  const span = checkpoint.sidecars.find((file) => file.path === path)?.span;
  return span === undefined ? null : sources.bytes(span.file, span.offset, span.size);
}

/** The lines between the common start and the common end; null if a file is not a short text. */
function linesApart(a: Uint8Array, b: Uint8Array): NonNullable<DiffedSidecar["lines"]> | null {
  if (Math.max(a.byteLength, b.byteLength) > MAX_TEXT_BYTES) return null;
  const [left, right] = [textOf(a), textOf(b)];
  if (left === null || right === null) return null;
  const least = Math.min(left.length, right.length);
  let start = 0;
  while (start < least && left[start] === right[start]) start++;
  let end = 0;
  while (end < least - start && left.at(-1 - end) === right.at(-1 - end)) end++;
  const between = (lines: readonly string[]) =>
    lines.slice(start, Math.min(lines.length - end, start + MAX_LINES));
  return { from: start + 1, a: between(left), b: between(right) };
}

function textOf(bytes: Uint8Array): string[] | null {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes).split("\n");
  } catch {
    return null; // no text, and then lines say nothing
  }
}
