/** Finds configs that make their loaders run code: YAML tags of Python, classes named by `_target_`, `auto_map`. */
import type { Finding } from "../core/finding.ts";
import { isDangerous } from "./names.ts";

/** Limit of a config; larger files are vocabularies. */
export const MAX_TEXT_BYTES = 16 * 1024 * 1024;

export function scanText(text: string, file: string): Finding[] {
  const findings: Finding[] = [];
  const add = (rule: string, severity: Finding["severity"], offset: number, message: string) =>
    findings.push({ rule, severity, at: { file, tensor: null, offset }, message });
  const isYaml = /\.ya?ml$/i.test(file);
  const byteAt = (index: number) => Buffer.byteLength(text.slice(0, index));
  if (isYaml) {
    for (const match of text.matchAll(/(?:!!|!<tag:yaml\.org,2002:)(python\/[\w./:-]+)/g)) {
      add("yaml-code", "danger", byteAt(match.index), `an unsafe YAML loader would create ${match[1]}`);
    }
  }
  // `_target_` has one spelling in YAML and JSON; a Fiddle graph has module and name as two keys
  const targets = text.matchAll(
    /["']?_target_["']?\s*:\s*["']?([\w.]+)|"module"\s*:\s*"([\w.]+)"\s*,\s*"name"\s*:\s*"([\w.]+)"/g,
  );
  for (const match of targets) {
    const name = match[1] ?? `${match[2]}.${match[3]}`;
    if (isDangerous(name))
      add("config-code", "danger", byteAt(match.index), `the loader of this config would call ${name}`);
  }
  const map = isYaml ? -1 : text.search(/"auto_map"\s*:/);
  if (map >= 0) {
    add(
      "remote-code",
      "warning",
      byteAt(map),
      "auto_map: with trust_remote_code the loader runs code that comes with the checkpoint",
    );
  }
  return findings;
}
