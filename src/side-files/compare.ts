/** Compares the side files of two checkpoints for the cover rung, by the table of side files. */

import { MODELOPT_CONFIG } from "../checkpoint/declared-quantization.ts";
import type { Finding } from "../core/finding.ts";
import { difference, remark } from "../core/finding.ts";
import { canonicalJson } from "../core/hash.ts";
import { isJsonObject, parseJsonObject } from "../core/json.ts";
import type { Dialect } from "../families/dialect.ts";
import type { MatchedModel } from "../families/model.ts";
import type { Config } from "../families/structure.ts";
import { SPECIAL_TOKENS, specialIds } from "../tokenizer/special-tokens.ts";
import { haveSameMeaning } from "./meaning.ts";
import { INDEX, refuseDamagedFiles, SINGLE, SideFiles } from "./read.ts";
import { configKeys, type FileOutcome, sideFileKind, withSeverity } from "./rules.ts";

const CONFIG = "config.json";
const GENERATION = "generation_config.json";

/** Limit of a file that is parsed; a tokenizer of 131,072 tokens has 17 MB. Only the bytes of larger files are compared. */
const MAX_MEANING_BYTES = 256 * 1024 * 1024;

/** @param recast some element is stored as another type in b */
export async function compareFiles(
  a: MatchedModel,
  b: MatchedModel,
  recast: boolean,
): Promise<readonly Finding[]> {
  for (const { checkpoint } of [a, b]) await refuseDamagedFiles(checkpoint);
  await using left = new SideFiles(a.checkpoint, true);
  await using right = new SideFiles(b.checkpoint);
  const findings: Finding[] = [];
  for (const path of [...new Set([...left.paths, ...right.paths])].sort()) {
    if (recast && path === MODELOPT_CONFIG) continue;
    if (path === CONFIG && a.dialect !== b.dialect && !(left.has(path) && right.has(path))) continue; // settings
    if (path === INDEX && (await namesSingle(right))) continue;
    if (path === GENERATION && a.dialect !== b.dialect && !left.has(path) && (await followsTokenizer(right)))
      continue;
    const { added, missing, differs } = sideFileKind(path, right.isRival(path));
    const at = { file: path };
    if (!left.has(path)) {
      findings.push(...withSeverity(added, "file-absent", `${path} is only in the second checkpoint`, at));
    } else if (!right.has(path)) {
      if (left.isSurplus(path)) continue; // the conversion left the file out and reported it
      findings.push(...withSeverity(missing, "file-absent", `${path} is only in the first checkpoint`, at));
    } else if (differs !== "nothing" && !(await areEqual(path, left, right))) {
      if (path === CONFIG) {
        findings.push(...configFindings(await configIn(left), await configIn(right), readBy(a, b), recast));
      } else if (await areAlike(path, left, right)) {
        findings.push(remark("file-respelt", `${path} has the same content in another spelling`, at));
      } else findings.push(...withSeverity(differs, "file-differs", `${path} differs`, at));
    }
  }
  return [...findings, ...readingFindings(a, b, findings)];
}

/** Remarks from reading b, about files that have no finding yet. */
function readingFindings(a: MatchedModel, b: MatchedModel, findings: readonly Finding[]): readonly Finding[] {
  const known = new Set((a.checkpoint.remarks ?? []).map(({ rule }) => rule));
  const reported = new Set(findings.map(({ at }) => at.file));
  const fresh = (b.checkpoint.remarks ?? []).filter(
    ({ rule, at }) => !known.has(rule) && !reported.has(at.file),
  );
  return fresh.map(({ rule, severity, at, message }) => {
    return severity === "error" ? difference(rule, message, at) : remark(rule, message, at);
  });
}

/** Whether an index names only the single file beside it. */
async function namesSingle(files: SideFiles): Promise<boolean> {
  if (!files.has(INDEX)) return false;
  try {
    const { weight_map: map } = parseJsonObject(await files.bytes(INDEX));
    return isJsonObject(map) && Object.values(map).every((file) => file === SINGLE);
  } catch {
    return false; // the file is not an index
  }
}

/** Whether generation settings say only which tokens begin, end and pad a text, as the tokenizer beside them does. */
async function followsTokenizer(files: SideFiles): Promise<boolean> {
  const ids = await specialIds(async (path) => (files.has(path) ? await files.bytes(path) : null));
  const settings = parseJsonObject(await files.bytes(GENERATION), { file: GENERATION, nonFinite: true });
  return (
    SPECIAL_TOKENS.every((name) => settings[`${name}_token_id`] === ids[name]) &&
    Object.keys(settings).length === Object.keys(ids).length
  );
}

async function areEqual(path: string, a: SideFiles, b: SideFiles): Promise<boolean> {
  return a.size(path) === b.size(path) && (await a.digest(path)) === (await b.digest(path));
}

async function areAlike(path: string, a: SideFiles, b: SideFiles): Promise<boolean> {
  if (Math.max(a.size(path), b.size(path)) > MAX_MEANING_BYTES) return false;
  return haveSameMeaning(path, await a.bytes(path), await b.bytes(path));
}

function configIn(files: SideFiles): Promise<Config> {
  return files.bytes(CONFIG).then((bytes) => parseJsonObject(bytes, { file: CONFIG, nonFinite: true }));
}

/** The dialect that read both files as settings; null for a carried config, which no dialect read. */
function readBy(a: MatchedModel, b: MatchedModel): Dialect | null {
  return a.dialect === b.dialect && a.dialect.isSettingKey !== undefined ? a.dialect : null;
}

/** Names of the keys that differ, the most severe first. */
function configFindings(before: Config, after: Config, dialect: Dialect | null, recast: boolean) {
  const differing = keysThatDiffer(before, after);
  if (differing.length === 0)
    return configFinding("config-respelt", "remark", `${CONFIG} has the same content in another spelling`);
  const outcomeOf = (key: string): FileOutcome =>
    configKeys(key, dialect?.isSettingKey?.(key) ?? false)[recast ? "recast" : "differs"];
  return OUTCOMES.flatMap((outcome) => {
    const keys = differing.filter((key) => outcomeOf(key) === outcome);
    if (keys.length === 0) return [];
    return configFinding("config-differs", outcome, `${CONFIG} differs in ${keys.join(", ")}`);
  });
}

const OUTCOMES: readonly FileOutcome[] = ["different", "difference", "remark"];

const configFinding = (rule: string, outcome: FileOutcome, message: string) =>
  withSeverity(outcome, rule, message, { file: CONFIG });

export function keysThatDiffer(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>) {
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort();
  return keys.filter((key) => canonicalJson(a[key] ?? null) !== canonicalJson(b[key] ?? null));
}
