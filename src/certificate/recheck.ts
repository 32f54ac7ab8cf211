/** `verify A`: compares a checkpoint with its certificate. The source is not read. */

import { checkChunks } from "../checkpoint/chunk-checks.ts";
import { loadModelWithScales, type ModelWithScales } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { storeAt } from "../checkpoint/store.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents } from "../core/events.ts";
import type { Finding } from "../core/finding.ts";
import { remark } from "../core/finding.ts";
import { mainLayers } from "../families/model.ts";
import { FINGERPRINT_BOUND } from "../inference/fingerprint.ts";
import { memoryOf } from "../inference/machine.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import { withSeverity } from "../side-files/rules.ts";
import { derOf, readKey } from "../signing/ed25519.ts";
import { compareSignedFiles, type SignedFiles } from "../signing/signed-files.ts";
import { judgeFindings, reportedFindings, verdictWith } from "../verify/judge-findings.ts";
import { givenLimits, readLimits } from "../verify/limits.ts";
import { referenceRung } from "../verify/reference.ts";
import type { RungReport, Verdict, VerifyReport } from "../verify/report.ts";
import { divergenceFrom, executionDepth, kindOf, worseVerdict } from "../verify/verdict.ts";
import { poolSize, WorkerPool } from "../workers/pool.ts";
import { type Certificate, decodeCertificate, digestOfLeaf } from "./certificate.ts";
import { compareCertifiedFiles } from "./certified-files.ts";
import { judgeCertifiedLimits, widerLimits } from "./certified-limits.ts";
import { type ContentDigests, contentBytes, digestContent } from "./content.ts";
import { certificateReport } from "./issue.ts";
import { findCertificate } from "./location.ts";
import type { VerifyOptions } from "./options.ts";
import { compareRerun } from "./rerun.ts";

/**
 * Compares a checkpoint with its bundle first, then with its certificate: files, roles and the fingerprint of logits.
 *
 * @throws CERTIFICATE_MISSING, CERTIFICATE_INVALID, BUNDLE_INVALID, BUNDLE_UNTRUSTED, and the errors of opening and
 *   matching a checkpoint
 */
export async function recheckCertificate(address: string, options: VerifyOptions): Promise<VerifyReport> {
  const signed = await compareSignedFiles(address, options);
  const checkpoint = await openCheckpoint(address, { ...options, keep: true });
  const { reference } = options;
  const found = await findCertificate(address, await storeAt(address), options.certificate).catch((error) => {
    const missing = error instanceof IsologitError && error.code === "CERTIFICATE_MISSING";
    if (missing && (reference !== undefined || signed !== null)) return null;
    throw error;
  });
  if (found === null) return verifyUncertified(checkChunks(checkpoint), signed, options);
  const certificate = decodeCertificate(found.bytes, found.file);
  if (signed === null) await refuseOtherKey(certificate, options.publicKey, found.file);
  const side = await loadModelWithScales(checkpoint, options);
  const watch = options.watch ?? ignoreEvents;
  const findings: Finding[] = [];
  const judge = (found: readonly Finding[]) => judgeFindings(found, options.strict);
  const rungs: RungReport[] = [];
  const add = (rung: RungReport) => {
    rungs.push(rung);
    watch({ type: "rung", rung: rung.rung, verdict: rung.verdict });
  };

  const { file } = found;
  const named = options.certificate !== undefined;
  const files = await compareCertifiedFiles(side, certificate, { file, named, signal: options.signal });
  const aboutFiles = judge([...files.findings, ...findUnsigned(signed)]);
  findings.push(...aboutFiles);
  const differences = [...files.differences, ...(signed?.differences ?? [])];
  const cover = coverRung(certificate.destination.files.length, differences);
  add({ ...cover, verdict: verdictWith(worseVerdict(cover.verdict, files.verdict), aboutFiles) });
  const content = await readContent(side, options);
  const differing = differingRoles(content, certificate);
  const sameRoot = content.root === certificate.destination.root;
  add({
    rung: "bytes",
    verdict: sameRoot && differing.length === 0 ? "same" : "different",
    metrics: {
      roles: content.leaves.length,
      different: differing.length,
      differences: differing.slice(0, 20),
    },
  });
  const behaviour = await compareRerun(side, certificate, options);
  if (behaviour.rung !== null) add(behaviour.rung);
  findings.push(...behaviour.findings);
  const limits = judgeCertifiedLimits(certificate, await readLimits(options));
  findings.push(...widerLimits(certificate), ...limits.findings);

  const recorded = reference === undefined ? null : await referenceRung(side, reference, options);
  if (recorded !== null) add(recorded.rung);
  await checkpoint.store.refuseChanged?.(); // the verdict is about the files at one time

  const layers = mainLayers(side).length;
  const roles = differing.flatMap((key) => side.roles.get(key) ?? []);
  const depths = roles.map((role) => executionDepth(role, layers));
  const first = Math.min(...depths);
  const blamed = roles.filter((_, i) => depths[i] === first);
  return {
    verdict: [...rungs, limits].map(({ verdict }) => verdict).reduce(worseVerdict),
    backend: behaviour.backend ?? recorded?.backend ?? null,
    device: behaviour.device ?? recorded?.device ?? null,
    rungs,
    firstDivergence:
      blamed.length === 0
        ? divergenceFrom(recorded?.firstLayer ?? null, side)
        : {
            layer: first,
            kind: kindOf(blamed[0]!),
            tensors: blamed.map(({ key }) => side.roleSources.get(key)![0]!.of!),
          },
    limits: behaviour.rung === null ? {} : { fingerprint: FINGERPRINT_BOUND },
    certificate: certificateReport(certificate),
    ...(signed !== null && { bundle: signed.report }),
    roots: { a: certificate.destination.root, b: content.root },
    ...reportedFindings(findings),
  };
}

/** Without a certificate: compares with the signed files, with recorded logits, or with both. */
async function verifyUncertified(
  checkpoint: Checkpoint,
  signed: SignedFiles | null,
  options: VerifyOptions,
): Promise<VerifyReport> {
  const cover = signed === null ? [] : [coverRung(signed.report.files, signed.differences)];
  const recorded = options.reference === undefined ? null : await verifyReferenced(checkpoint, options);
  const rungs = [...cover, ...(recorded === null ? [] : [recorded.rung])];
  const checked = [...cover.map(() => "the signed files"), ...(recorded === null ? [] : ["the reference"])];
  const message = `no certificate was found: only ${checked.join(" and ")} ${checked.length === 1 && recorded !== null ? "was" : "were"} checked`;
  const unjudged = Object.keys(givenLimits(await readLimits(options)));
  const verdicts = [...rungs.map(({ verdict }) => verdict), ...unjudged.map((): Verdict => "unproven")];
  const unjudgedLimits = `the limits that were given (${unjudged.join(", ")}) were not judged`;
  return {
    verdict: verdicts.reduce(worseVerdict),
    backend: recorded?.backend ?? null,
    device: recorded?.device ?? null,
    rungs,
    firstDivergence: recorded === null ? null : divergenceFrom(recorded.firstLayer, recorded.model),
    limits: {},
    certificate: null,
    ...(signed !== null && { bundle: signed.report }),
    roots: { a: null, b: null },
    ...reportedFindings([
      ...findUnsigned(signed),
      remark("certificate-absent", message),
      ...(unjudged.length === 0 ? [] : [remark("limit-unjudged", unjudgedLimits)]),
    ]),
  };
}

/** Findings for the differences between the signed files and the found files. */
function findUnsigned(signed: SignedFiles | null): readonly Finding[] {
  return (signed?.differences ?? []).flatMap((message) =>
    withSeverity("different", "file-unsigned", message, {}),
  );
}

async function verifyReferenced(checkpoint: Checkpoint, options: VerifyOptions) {
  if (options.verify === "bytes")
    throw new IsologitError("USAGE", "`reference` needs a forward pass, and `verify` is bytes");
  const side = await loadModelWithScales(checkpoint, options);
  refuseUnrunnable(side);
  return { ...(await referenceRung(side, options.reference!, options)), model: side };
}

function coverRung(files: number, differences: readonly string[]): RungReport {
  return {
    rung: "cover",
    verdict: differences.length === 0 ? "same" : "different",
    metrics: { files, differences },
  };
}

async function refuseOtherKey(
  { signature }: Certificate,
  path: string | undefined,
  file: string,
): Promise<void> {
  if (path === undefined) return;
  const key = derOf(await readKey(path, "public"));
  const refuse = (message: string) => new IsologitError("CERTIFICATE_INVALID", message, { file });
  if (signature === undefined) throw refuse("the certificate has no signature");
  if (signature.publicKey !== key) throw refuse("the certificate was signed with another key");
}

async function readContent(side: ModelWithScales, options: VerifyOptions): Promise<ContentDigests> {
  const watch = options.watch ?? ignoreEvents;
  watch({ type: "phase", phase: "bytes", totalBytes: contentBytes(side) });
  await using pool = new WorkerPool(poolSize(memoryOf(options), options.threads));
  return await digestContent(
    side,
    pool,
    (bytes) => watch({ type: "advance", phase: "bytes", bytes }),
    options.signal,
  );
}

function differingRoles({ leaves }: ContentDigests, certificate: Certificate): readonly string[] {
  const now = new Map(leaves.map((leaf) => [leaf.key, digestOfLeaf(leaf)]));
  const keys = new Set([...Object.keys(certificate.leaves), ...now.keys()]);
  return [...keys].filter((key) => now.get(key) !== certificate.leaves[key]).sort();
}
