/** The cover rung's settings: what the models depend on beside their weights, and the files that travel with them. */
import { IsologitError } from "../core/errors.ts";
import { readRange } from "../core/io.ts";
import { Sources } from "../core/read.ts";
import { canonical, sha256 } from "../core/root.ts";
import type { Matched } from "../families/match.ts";

export interface SettingsComparison {
  /** settings that differ, and a tokenizer that does: each makes another model */
  readonly differences: readonly string[];
  /** side files that differ or are on one side only */
  readonly findings: readonly string[];
  /** the roles and their shapes are the same, so that elements can be compared */
  readonly comparable: boolean;
}

/** Files that decide what a model does with text. */
const BEHAVIOUR = ["tokenizer.json", "tokenizer.model"];

/** Side files that follow from the way weights are stored; they say nothing of the model. */
const STORAGE = ["model.safetensors.index.json"];

export async function compareSettings(a: Matched, b: Matched): Promise<SettingsComparison> {
  const keys = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])].sort();
  const differences = keys
    .filter((key) => canonical(a.settings[key] ?? null) !== canonical(b.settings[key] ?? null))
    .map(
      (key) => `${key} is ${canonical(b.settings[key] ?? null)}, not ${canonical(a.settings[key] ?? null)}`,
    );
  const shapes = (matched: Matched) =>
    canonical([...matched.roles.values()].map(({ key, shape }) => [key, shape]));
  const [filesA, filesB] = [await digests(a), await digests(b)];
  const findings: string[] = [];
  for (const path of [...new Set([...filesA.keys(), ...filesB.keys()])].sort()) {
    const [left, right] = [filesA.get(path), filesB.get(path)];
    if (left === right || STORAGE.includes(path)) continue;
    if (left === undefined || right === undefined) {
      findings.push(`${path} is only in ${left === undefined ? "the second" : "the first"} checkpoint`);
    } else if (BEHAVIOUR.includes(path)) differences.push(`${path} differs`);
    else findings.push(`${path} differs`);
  }
  return { differences, findings, comparable: a.family.id === b.family.id && shapes(a) === shapes(b) };
}

/** A tokenizer of 131,072 words takes 17 MB; what is far larger is no side file that this rung reads. */
const MAX_SIDECAR_BYTES = 256 * 1024 * 1024;

async function digests({ checkpoint }: Matched): Promise<ReadonlyMap<string, string>> {
  await using sources = new Sources(checkpoint.store);
  const found = new Map<string, string>();
  for (const { path, span } of checkpoint.sidecars) {
    if (span.size > MAX_SIDECAR_BYTES) {
      throw new IsologitError("LIMIT_EXCEEDED", `a side file of ${span.size} bytes`, { file: path });
    }
    found.set(path, sha256(await readRange(await sources.source(span.file), span.offset, span.size)));
  }
  return found;
}
