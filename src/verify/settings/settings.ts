/** The settings part of the cover rung: compares settings and side files of two models. */

import { isSameForm, type LoadedModel, storedRole } from "../../checkpoint/load.ts";
import { sameShape } from "../../core/dtype.ts";
import type { Finding } from "../../core/finding.ts";
import { difference, remark } from "../../core/finding.ts";
import { canonicalJson } from "../../core/hash.ts";
import type { MatchedModel, Role } from "../../families/model.ts";
import { compareFiles, keysThatDiffer } from "../../side-files/compare.ts";
import { compareHeaderMetadata } from "./header-metadata.ts";
import { paddingFindings } from "./padding-rows.ts";
import { compareQuantization } from "./quantization.ts";

const CONFIG = "config.json";

export interface SettingsComparison {
  /** one sentence for each setting or file that makes another model */
  readonly differences: readonly string[];
  /** findings about side files, including those of `differences` */
  readonly findings: readonly Finding[];
  /** why config.json could not be judged; null where it could */
  readonly unjudged: string | null;
  /** first role that the other side lacks or has in another shape; null: elements can be compared */
  readonly unlike: Role | null;
}

/**
 * Compares everything on which the models depend in addition to their weights.
 *
 * @param strict the destination was written by this version
 */
export async function compareSettings(
  a: LoadedModel,
  b: LoadedModel,
  strict: boolean,
): Promise<SettingsComparison> {
  const [left, right] = [a.settings, b.settings];
  const unlike = firstUnlike(a, b);
  const recast = unlike === null && [...a.roles.values()].some((role) => isRecast(a, b, role));
  const differences = keysThatDiffer(left, right).map(
    (key) => `${key} is ${canonicalJson(right[key] ?? null)}, not ${canonicalJson(left[key] ?? null)}`,
  );
  const files = await compareFiles(a, b, recast);
  // for two checkpoints of one dialect, the comparison of files covers these keys
  const keys = a.dialect === b.dialect ? [] : [a, b].flatMap(keyFindings);
  const decisive = files.filter(({ severity }) => severity === "error").map(({ message }) => message);
  const quantization = await compareQuantization(a, b, strict);
  return {
    differences: [...differences, ...decisive, ...quantization.differences],
    findings: [
      ...keys,
      ...files,
      ...(await compareHeaderMetadata(a.checkpoint, b.checkpoint)),
      ...(await paddingFindings(b)),
      ...quantization.findings,
    ],
    unjudged: quantization.unjudged,
    unlike,
  };
}

/** Findings about config keys that are not settings and that another dialect cannot express. */
function keyFindings({ dialect, checkpoint }: LoadedModel): readonly Finding[] {
  const file = dialect.id === "hf" ? CONFIG : checkpoint.store.url;
  return dialect.keyRemarks(checkpoint.config).flatMap(({ rule, message }) => {
    if (rule === "config-key-unknown") return [difference(rule, message, { file })];
    return rule === "config-precision" ? [remark(rule, message, { file })] : [];
  });
}

function isRecast(a: LoadedModel, b: LoadedModel, role: Role): boolean {
  return !isSameForm(storedRole(a, role), storedRole(b, role));
}

function firstUnlike(a: MatchedModel, b: MatchedModel): Role | null {
  const [left, right] = [[...a.roles.values()], [...b.roles.values()]];
  const at = Array.from({ length: Math.max(left.length, right.length) }, (_, i) => i).find((i) => {
    return left[i]?.key !== right[i]?.key || !sameShape(left[i]!.shape, right[i]!.shape);
  });
  return at === undefined ? null : (left[at] ?? right[at]!);
}

/** Streams whose widths differ because of a setting such as `num_experts_per_tok`; the two models cannot run in step. */
export function streamsUnlike(a: LoadedModel, b: LoadedModel): readonly string[] {
  const [left, right] = [a, b].map(({ family, dims }) => family.forward.streams(dims));
  return Object.keys(left!).filter((name) => left![name] !== right![name]);
}
