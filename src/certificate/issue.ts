/** Issues a certificate from the results of a verification. */

import type { KeyObject } from "node:crypto";
import { type ModelWithScales, storedRole } from "../checkpoint/load.ts";
import { type Conversion, hubPlaceOf } from "../convert/conversion-record.ts";
import type { Store } from "../core/io.ts";
import type { PluginsReport } from "../plugins/plugin.ts";
import { fingerprintOf, signDigest } from "../signing/ed25519.ts";
import type { CertificateReport, Proof, RungReport } from "../verify/report.ts";
import { isProven } from "../verify/verdict.ts";
import {
  type Certificate,
  type CertificateBody,
  type CutRecord,
  digestOfLeaf,
  sealCertificate,
} from "./certificate.ts";
import { certifiedQuality } from "./certified-limits.ts";
import { digestFilesExceptRoles } from "./file-digests.ts";
import { trailerIn } from "./location.ts";

interface Issue extends PluginsReport {
  /** id of the plan of the conversion */
  readonly plan: string;
  /** the options that decide the bytes of the destination */
  readonly conversion: Conversion | undefined;
  /** what was kept of the source; absent unless it was pruned */
  readonly cut?: CutRecord;
  /** version of this tool */
  readonly version: string;
  readonly key?: KeyObject | undefined;
  /** the current files of the destination; some were written after the verification */
  readonly store: Store;
  readonly signal: AbortSignal | undefined;
}

/** @returns null if the verdict is neither `same` nor `within` */
export async function issueCertificate(proof: Proof, issue: Issue): Promise<Certificate | null> {
  const { report, source, destination, leaves, prompt, fingerprint } = proof;
  const { verdict, roots } = report;
  if (!isProven(verdict)) return null;
  if (leaves === null || roots.a === null || roots.b === null) return null;
  const { checkpoint } = destination;
  const now = { ...destination, checkpoint: { ...checkpoint, store: issue.store } };
  const trailer = await trailerIn(issue.store);
  const identity = ({ checkpoint }: ModelWithScales, root: string) => {
    const { format, dialect } = checkpoint;
    return { format, dialect, root };
  };
  const address = hubPlaceOf(source.checkpoint.store.url);
  const body: CertificateBody = {
    kind: "isologit certificate",
    version: 1,
    tool: `isologit ${issue.version}`,
    ...(issue.plugins !== undefined && { plugins: issue.plugins }),
    source: { ...identity(source, roots.a), ...(address !== undefined && { address }) },
    destination: {
      ...identity(destination, roots.b),
      files: await digestFilesExceptRoles(now, trailer, issue.signal),
    },
    plan: issue.plan,
    ...(issue.conversion !== undefined && { conversion: issue.conversion }),
    ...(issue.cut !== undefined && { cut: issue.cut }),
    recast: recastsOf(source, destination),
    verdict,
    backend: report.backend,
    prompt,
    rungs: report.rungs.map(rungOf),
    limits: report.limits,
    reference: report.rungs.some(({ rung }) => rung === "reference"),
    leaves: Object.fromEntries(leaves.map((leaf) => [leaf.key, digestOfLeaf(leaf)])),
    fingerprint,
  };
  const sealed = sealCertificate(body);
  return issue.key === undefined ? sealed : { ...sealed, signature: signDigest(sealed.sha256, issue.key) };
}

export function certificateReport(certificate: Certificate): CertificateReport {
  const { sha256, tool, reference, verdict, limits, signature } = certificate;
  const signedBy = signature === undefined ? null : fingerprintOf(signature);
  return { sha256, tool, reference, verdict, limits, quality: certifiedQuality(certificate), signedBy };
}

function recastsOf(a: ModelWithScales, b: ModelWithScales): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const role of a.roles.values()) {
    const [from, to] = [storedRole(a, role).dtype, storedRole(b, role).dtype];
    if (from !== to) counts[`${from} to ${to}`] = (counts[`${from} to ${to}`] ?? 0) + 1;
  }
  return counts;
}

/** Numbers of a rung, without its lists. Of the controls, the number that was caught and the number that was void. */
function rungOf({ rung, verdict, metrics }: RungReport): CertificateBody["rungs"][number] {
  const numbers: Record<string, number | string> = {};
  for (const [name, value] of Object.entries(metrics)) {
    if (typeof value === "number") numbers[name] = Number.isFinite(value) ? value : String(value);
  }
  if ("controls" in metrics) {
    numbers.wiringMaxRelL2 = metrics.wiring.maxRelL2;
    numbers.controlsCaught = metrics.controls.filter(({ caught }) => caught === true).length;
    numbers.controlsVoid = metrics.controls.filter(({ caught }) => caught === null).length;
  }
  // `issueCertificate` requires one of these two verdicts, and the verdict is the worst of its rungs
  return { rung, verdict: verdict as "same" | "within", metrics: numbers };
}
