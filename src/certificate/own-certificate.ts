/**
 * A checkpoint's own certificate, held against what a verification read of the checkpoint anyway: a source that is no
 * longer what was certified must not be certified anew under its old name.
 */

import type { ModelWithScales } from "../checkpoint/load.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import type { Finding } from "../core/finding.ts";
import { difference, remark } from "../core/finding.ts";
import type { ModelContent, VerifiedContent } from "../verify/verify.ts";
import { version } from "../version.ts";
import { type Certificate, decodeCertificate, digestOfLeaf } from "./certificate.ts";
import { compareCertifiedFiles } from "./certified-files.ts";
import { findCertificate } from "./location.ts";

export interface OwnCertificate {
  /** as a person would name it */
  readonly file: string;
  /** whose it is */
  readonly address: string;
  /** null where it cannot be read, or speaks of another format: then nothing is held against it */
  readonly certificate: Certificate | null;
  /** why nothing is */
  readonly findings: readonly Finding[];
}

/** What lies in a checkpoint or beside it; null where nothing does. */
export async function ownCertificate(
  address: string,
  checkpoint: Checkpoint,
): Promise<OwnCertificate | null> {
  const found = await findCertificate(address, checkpoint.store).catch((error) => {
    if (error instanceof IsologitError && error.code === "CERTIFICATE_MISSING") return null;
    throw error;
  });
  if (found === null) return null;
  const { bytes, file } = found;
  const aside = (finding: Finding) => ({ file, address, certificate: null, findings: [finding] });
  try {
    const certificate = decodeCertificate(bytes, file);
    const { format } = certificate.destination;
    if (format === checkpoint.format) return { file, address, certificate, findings: [] };
    const message = `${file} is the certificate of a ${format} checkpoint, and this one is ${checkpoint.format}: it says nothing of it`;
    return aside(remark("certificate-elsewhere", message, { file }));
  } catch (error) {
    if (!(error instanceof IsologitError) || error.code !== "CERTIFICATE_INVALID") throw error;
    const message = `${file} cannot be believed, and nothing was held against it: ${error.message}`;
    return aside(difference("certificate-invalid", message, { file }));
  }
}

interface Contradiction {
  readonly message: string;
  readonly at: { readonly file: string; readonly tensor?: string };
  /** what to do about it */
  readonly next: string;
}

/** The first thing of a checkpoint that is not what its own certificate says; null where there is none. */
function contradictionOf(
  { certificate, file, address }: OwnCertificate,
  { model: { roles, roleSources }, leaves, root }: ModelContent,
): Contradiction | null {
  if (certificate === null) return null;
  const way =
    file === address ? "fetch or write it again" : "where that was on purpose, delete the certificate";
  const next = `\`isologit verify ${address}\` tells what changed; ${way}`;
  const now = new Map(leaves.map((leaf) => [leaf.key, digestOfLeaf(leaf)]));
  const wrong = [...roles.keys()].filter((key) => now.get(key) !== certificate.leaves[key]);
  const [first, ...more] = wrong;
  if (first !== undefined) {
    const tensor = roleSources.get(first)![0]!.of!;
    const others = more.length === 0 ? "" : ` (of ${wrong.length})`;
    return { message: `${tensor}${others} has other values than ${file} says`, at: { file, tensor }, next };
  }
  const lost = Object.keys(certificate.leaves).filter((key) => !roles.has(key));
  if (lost.length > 0)
    return { message: `${lost[0]} is not there, of which ${file} speaks`, at: { file }, next };
  // Another version may count other settings among those that a model depends on.
  const comparable = certificate.tool === `isologit ${version}`;
  if (!comparable || certificate.destination.root === root) return null;
  return { message: `its settings are not those that ${file} was issued for`, at: { file }, next };
}

/** The certificates of two sides, where they have any. */
export interface OwnCertificates {
  readonly a?: OwnCertificate | null;
  readonly b?: OwnCertificate | null;
}

/** Findings where the content or the files of a side contradict the side's own certificate. */
export async function findContradictions(
  { a, b }: OwnCertificates,
  content: VerifiedContent,
  signal: AbortSignal | undefined,
): Promise<readonly Finding[]> {
  const sides = [[a, content.a] as const, [b, content.b] as const];
  const findings = sides.flatMap(([certificate, side]) => {
    const contradiction = certificate == null ? null : contradictionOf(certificate, side);
    return contradiction === null
      ? []
      : [difference("certificate-contradicted", contradiction.message, contradiction.at)];
  });
  for (const [certificate, { model }] of sides) {
    if (certificate == null) continue;
    findings.push(...certificate.findings, ...(await filesContradicting(certificate, model, signal)));
  }
  return findings;
}

/** Headers and side files that are not as they were certified, and files that engines load and nobody certified. */
async function filesContradicting(
  { certificate, file }: OwnCertificate,
  side: ModelWithScales,
  signal: AbortSignal | undefined,
): Promise<readonly Finding[]> {
  if (certificate === null) return [];
  const { findings } = await compareCertifiedFiles(side, certificate, { file, named: false, signal });
  return findings
    .filter(({ severity }) => severity === "error")
    .map(({ message, at }) =>
      difference("certificate-contradicted", `${message}, against ${file}`, { file: at.file }),
    );
}

/** @throws CERTIFICATE_CONTRADICTED where a source is not what its own certificate says */
export function refuseContradictedSource(certificate: OwnCertificate | null, source: ModelContent): void {
  const contradiction = certificate === null ? null : contradictionOf(certificate, source);
  if (contradiction === null) return;
  const { message, at, next } = contradiction;
  const text = `the source is not what was certified: ${message}`;
  throw new IsologitError("CERTIFICATE_CONTRADICTED", text, at, { next });
}
