/** The cover rung's settings: what the models depend on beside their weights, and the files that travel with them. */
import type { Finding } from "../api/reports.ts";
import { sameShape } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { ORIGIN_HEADERS } from "../core/origin.ts";
import { Sources } from "../core/read.ts";
import { canonical, sha256 } from "../core/root.ts";
import type { Matched, Role } from "../families/match.ts";
import { QUANTIZATION_FILES } from "../recast/spelling.ts";
import { difference, remark } from "./findings.ts";
import { compareQuantization } from "./quantization.ts";
import { type Paired, storedAs } from "./sides.ts";

export interface SettingsComparison {
  /** settings that differ, and a tokenizer that does: each makes another model */
  readonly differences: readonly string[];
  /** side files that differ or are on one side only */
  readonly findings: readonly Finding[];
  /** why what config.json says could not be judged; null where it was */
  readonly unjudged: string | null;
  /** the first role that the other side lacks or has in another shape; null: elements can be compared */
  readonly unlike: Role | null;
}

/** Files that decide what a model does with text. */
const BEHAVIOUR = ["tokenizer.json", "tokenizer.model"];

/** Side files that follow from the way weights are stored; they say nothing of the model. */
export const STORAGE = ["model.safetensors.index.json"];

/** Keys of config.json that a recast has to change. */
const RECAST_KEYS = ["quantization_config", "torch_dtype", "dtype"];

export async function compareSettings(a: Paired, b: Paired): Promise<SettingsComparison> {
  const [left, right] = [a.matched.settings, b.matched.settings];
  const unlike = firstUnlike(a.matched, b.matched);
  const recast = unlike === null && [...a.matched.roles.values()].some((role) => isRecast(a, b, role));
  const differences = keysThatDiffer(left, right).map(
    (key) => `${key} is ${canonical(right[key] ?? null)}, not ${canonical(left[key] ?? null)}`,
  );
  const [filesA, filesB] = [await digests(a.matched), await digests(b.matched)];
  // two records of one dialect are compared as files
  const findings: Finding[] = a.matched.dialect === b.matched.dialect ? [] : [a, b].flatMap(keyFindings);
  for (const path of [...new Set([...filesA.keys(), ...filesB.keys()])].sort()) {
    const [mine, theirs] = [filesA.get(path), filesB.get(path)];
    if (mine === theirs || STORAGE.includes(path)) continue;
    if (recast && QUANTIZATION_FILES.includes(path)) continue;
    if (path === CONFIG && a.matched.dialect !== b.matched.dialect) continue; // compared as settings
    if (mine === undefined || theirs === undefined) {
      const message = `${path} is only in the ${mine === undefined ? "second" : "first"} checkpoint`;
      findings.push(difference("file-absent", message, { file: path }));
    } else if (BEHAVIOUR.includes(path)) differences.push(`${path} differs`);
    else if (path === CONFIG) findings.push(...configFindings(a.matched, b.matched, recast));
    else findings.push(difference("file-differs", `${path} differs`, { file: path }));
  }
  const quantization = await compareQuantization(a, b);
  differences.push(...quantization.differences);
  findings.push(...quantization.findings);
  return { differences, findings, unjudged: quantization.unjudged, unlike };
}

/** What one side's config says beside the settings, and no other dialect's can say. */
function keyFindings({ matched: { dialect, checkpoint } }: Paired): readonly Finding[] {
  const file = dialect.id === "hf" ? CONFIG : checkpoint.store.url;
  return dialect.keyRemarks(checkpoint.config).flatMap(({ rule, message }) => {
    if (rule === "config-key-unknown") return [difference(rule, message, { file })];
    return rule === "config-precision" ? [remark(rule, message, { file })] : [];
  });
}

function isRecast(a: Paired, b: Paired, role: Role): boolean {
  return storedAs(a, role).dtype !== storedAs(b, role).dtype;
}

function firstUnlike(a: Matched, b: Matched): Role | null {
  const [left, right] = [[...a.roles.values()], [...b.roles.values()]];
  const at = Array.from({ length: Math.max(left.length, right.length) }, (_, i) => i).find((i) => {
    return left[i]?.key !== right[i]?.key || !sameShape(left[i]!.shape, right[i]!.shape);
  });
  return at === undefined ? null : (left[at] ?? right[at]!);
}

export function keysThatDiffer(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>) {
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort();
  return keys.filter((key) => canonical(a[key] ?? null) !== canonical(b[key] ?? null));
}

const CONFIG = "config.json";

/** Keys that differ, by name. What two configs mean was compared as settings; this is what else they say. */
function configFindings(a: Matched, b: Matched, recast: boolean): readonly Finding[] {
  const keys = keysThatDiffer(a.checkpoint.config, b.checkpoint.config);
  const unasked = keys.filter((key) => !recast || !RECAST_KEYS.includes(key));
  const at = { file: CONFIG };
  if (unasked.length > 0) {
    return [difference("config-differs", `${CONFIG} differs in ${unasked.join(", ")}`, at)];
  }
  return keys.length > 0 ? [] : [remark("config-respelt", `${CONFIG} says the same in other words`, at)];
}

/** A tokenizer of 131,072 words takes 17 MB; what is far larger is no side file that this rung reads. */
const MAX_SIDECAR_BYTES = 256 * 1024 * 1024;

/** Side files by path; what a destination could not say lies in its `isologit.origin/`. */
async function digests({ checkpoint }: Matched): Promise<ReadonlyMap<string, string>> {
  await using sources = new Sources(checkpoint.store);
  const found = new Map<string, string>();
  const kept = (checkpoint.origin?.sidecars ?? []).filter(({ path }) => !path.startsWith(ORIGIN_HEADERS));
  for (const { path, span } of [...kept, ...checkpoint.sidecars]) {
    if (span.size > MAX_SIDECAR_BYTES) {
      throw new IsologitError("LIMIT_EXCEEDED", `a side file of ${span.size} bytes`, { file: path });
    }
    found.set(path, sha256(await sources.bytes(span.file, span.offset, span.size)));
  }
  return found;
}
