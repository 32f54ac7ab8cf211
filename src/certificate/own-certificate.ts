/**
 * Compares a checkpoint with its own certificate, by the content that a verification has read already. A source that
 * changed after its certification must not get a new certificate.
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
  /** path for messages */
  readonly file: string;
  /** address of the checkpoint */
  readonly address: string;
  /** null if the certificate cannot be read or is of another format; then no comparison is made */
  readonly certificate: Certificate | null;
  /** reason for no comparison */
  readonly findings: readonly Finding[];
}

/** The certificate in a checkpoint or beside it; null if there is no certificate. */
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
    const message = `${file} is the certificate of a ${format} checkpoint, and this checkpoint is ${checkpoint.format}: no comparison was made`;
    return aside(remark("certificate-elsewhere", message, { file }));
  } catch (error) {
    if (!(error instanceof IsologitError) || error.code !== "CERTIFICATE_INVALID") throw error;
    const message = `${file} is not valid, and no comparison was made: ${error.message}`;
    return aside(difference("certificate-invalid", message, { file }));
  }
}

interface Contradiction {
  readonly message: string;
  readonly at: { readonly file: string; readonly tensor?: string };
  /** next step for the user */
  readonly next: string;
}

/** The first difference between a checkpoint and its own certificate; null if there is no difference. */
function contradictionOf(
  { certificate, file, address }: OwnCertificate,
  { model: { roles, roleSources }, leaves, root }: ModelContent,
): Contradiction | null {
  if (certificate === null) return null;
  const way =
    file === address ? "fetch or write it again" : "if the change was on purpose, delete the certificate";
  const next = `\`isologit verify ${address}\` reports the changes; ${way}`;
  const now = new Map(leaves.map((leaf) => [leaf.key, digestOfLeaf(leaf)]));
  const wrong = [...roles.keys()].filter((key) => now.get(key) !== certificate.leaves[key]);
  const [first, ...more] = wrong;
  if (first !== undefined) {
    const tensor = roleSources.get(first)![0]!.of!;
    const others = more.length === 0 ? "" : ` (of ${wrong.length})`;
    return { message: `${tensor}${others} has other values than in ${file}`, at: { file, tensor }, next };
  }
  const lost = Object.keys(certificate.leaves).filter((key) => !roles.has(key));
  if (lost.length > 0) return { message: `${lost[0]} is missing, and ${file} lists it`, at: { file }, next };
  // Another version may include other settings in the content root.
  const comparable = certificate.tool === `isologit ${version}`;
  if (!comparable || certificate.destination.root === root) return null;
  return { message: `the settings differ from the settings in ${file}`, at: { file }, next };
}

/** The certificates of two sides, if they have certificates. */
interface OwnCertificates {
  readonly a?: OwnCertificate | null;
  readonly b?: OwnCertificate | null;
}

/** Findings for content and files of a side that differ from its own certificate. */
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
    findings.push(...certificate.findings, ...(await findChangedFiles(certificate, model, signal)));
  }
  return findings;
}

/** Findings for headers and side files that differ from the certificate, and for uncertified files that engines load. */
async function findChangedFiles(
  { certificate, file }: OwnCertificate,
  side: ModelWithScales,
  signal: AbortSignal | undefined,
): Promise<readonly Finding[]> {
  if (certificate === null) return [];
  const { findings } = await compareCertifiedFiles(side, certificate, { file, named: false, signal });
  return findings
    .filter(({ severity }) => severity === "error")
    .map(({ message, at }) =>
      difference("certificate-contradicted", `${message}, compared with ${file}`, { file: at.file }),
    );
}

/** @throws CERTIFICATE_CONTRADICTED: the source differs from its own certificate */
export function refuseContradictedSource(certificate: OwnCertificate | null, source: ModelContent): void {
  const contradiction = certificate === null ? null : contradictionOf(certificate, source);
  if (contradiction === null) return;
  const { message, at, next } = contradiction;
  const text = `the source differs from its certificate: ${message}`;
  throw new IsologitError("CERTIFICATE_CONTRADICTED", text, at, { next });
}
