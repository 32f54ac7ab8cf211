/** The cover rung's settings: what the models depend on beside their weights, and the files that travel with them. */

import { type LoadedModel, storedRole } from "../../checkpoint/load.ts";
import { sameShape } from "../../core/dtype.ts";
import type { Finding } from "../../core/finding.ts";
import { difference, remark } from "../../core/finding.ts";
import { canonicalJson } from "../../core/hash.ts";
import type { Matched, Role } from "../../families/model.ts";
import { compareFiles, keysThatDiffer } from "../../side-files/compare.ts";
import { compareMetadata } from "./header-metadata.ts";
import { paddingFindings } from "./padding-rows.ts";
import { compareQuantization } from "./quantization.ts";

const CONFIG = "config.json";

export interface SettingsComparison {
  /** settings and files that make another model */
  readonly differences: readonly string[];
  /** what side files are told of, those of `differences` too */
  readonly findings: readonly Finding[];
  /** why what config.json says could not be judged; null where it was */
  readonly unjudged: string | null;
  /** the first role that the other side lacks or has in another shape; null: elements can be compared */
  readonly unlike: Role | null;
}

export async function compareSettings(a: LoadedModel, b: LoadedModel): Promise<SettingsComparison> {
  const [left, right] = [a.settings, b.settings];
  const unlike = firstUnlike(a, b);
  const recast = unlike === null && [...a.roles.values()].some((role) => isRecast(a, b, role));
  const differences = keysThatDiffer(left, right).map(
    (key) => `${key} is ${canonicalJson(right[key] ?? null)}, not ${canonicalJson(left[key] ?? null)}`,
  );
  const files = await compareFiles(a, b, recast);
  // two records of one dialect are compared as files
  const keys = a.dialect === b.dialect ? [] : [a, b].flatMap(keyFindings);
  const decisive = files.filter(({ severity }) => severity === "error").map(({ message }) => message);
  const quantization = await compareQuantization(a, b);
  return {
    differences: [...differences, ...decisive, ...quantization.differences],
    findings: [
      ...keys,
      ...files,
      ...(await compareMetadata(a.checkpoint, b.checkpoint)),
      ...(await paddingFindings(b)),
      ...quantization.findings,
    ],
    unjudged: quantization.unjudged,
    unlike,
  };
}

/** What one side's config says beside the settings, and no other dialect's can say. */
function keyFindings({ dialect, checkpoint }: LoadedModel): readonly Finding[] {
  const file = dialect.id === "hf" ? CONFIG : checkpoint.store.url;
  return dialect.keyRemarks(checkpoint.config).flatMap(({ rule, message }) => {
    if (rule === "config-key-unknown") return [difference(rule, message, { file })];
    return rule === "config-precision" ? [remark(rule, message, { file })] : [];
  });
}

function isRecast(a: LoadedModel, b: LoadedModel, role: Role): boolean {
  return storedRole(a, role).dtype !== storedRole(b, role).dtype;
}

function firstUnlike(a: Matched, b: Matched): Role | null {
  const [left, right] = [[...a.roles.values()], [...b.roles.values()]];
  const at = Array.from({ length: Math.max(left.length, right.length) }, (_, i) => i).find((i) => {
    return left[i]?.key !== right[i]?.key || !sameShape(left[i]!.shape, right[i]!.shape);
  });
  return at === undefined ? null : (left[at] ?? right[at]!);
}
