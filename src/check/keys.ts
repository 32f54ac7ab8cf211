/** Findings about config keys that are not settings. */

import type { Checkpoint } from "../core/checkpoint.ts";
import type { Finding } from "../core/finding.ts";
import { finding } from "../core/finding.ts";
import type { Family } from "../families/family.ts";
import { keyRemarksOf } from "../families/recognise.ts";

export function checkKeys(checkpoint: Checkpoint, families: readonly Family[]): readonly Finding[] {
  const file = checkpoint.dialect === "hf" ? "config.json" : checkpoint.store.url;
  return keyRemarksOf(checkpoint, families).map(({ rule, severity, message }) =>
    finding(rule, severity, { file }, message),
  );
}
