/** Compares the files of a checkpoint with the files that its certificate lists. */

import type { ModelWithScales } from "../checkpoint/load.ts";
import { ORIGIN_FOLDER, ORIGIN_HEADERS } from "../core/carried-files.ts";
import { CARD_FILE, type CarriedFiles } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import type { Finding } from "../core/finding.ts";
import { difference, remark } from "../core/finding.ts";
import { SideFiles } from "../side-files/read.ts";
import { sideFileKind, withSeverity } from "../side-files/rules.ts";
import type { RungReport } from "../verify/report.ts";
import type { Certificate } from "./certificate.ts";
import { digestFilesExceptRoles } from "./file-digests.ts";
import { trailerIn } from "./location.ts";

interface CertifiedFiles {
  /** one sentence for each file that differs or is missing */
  readonly differences: readonly string[];
  /** the findings of `differences`, and of added files */
  readonly findings: readonly Finding[];
  readonly verdict: RungReport["verdict"];
}

/**
 * Compares the files of a checkpoint with a certificate. A certificate lists the files of one format. For a checkpoint of
 * another format only the side files that the certificate lists are compared; the caller compares the content root.
 *
 * @param file  path of the certificate
 * @param named the user named the certificate by its path
 * @throws CERTIFICATE_INVALID: the certificate is of another format, and the user did not name it
 */
export async function compareCertifiedFiles(
  side: ModelWithScales,
  certificate: Certificate,
  { file, named, signal }: { file: string; named: boolean; signal: AbortSignal | undefined },
): Promise<CertifiedFiles> {
  const [found, certified] = [side.checkpoint.format, certificate.destination.format];
  if (found === certified) return summarize(await compareSameFormat(side, certificate, signal));
  if (!named) {
    const message = `it was issued for a checkpoint of format ${certified}, and this one is ${found}`;
    const next = `verify it against its source, or name the certificate of the ${certified} checkpoint with \`certificate\``;
    throw new IsologitError("CERTIFICATE_INVALID", message, { file }, { next });
  }
  if (certified === "hf") return summarize(await compareSideFiles(side, certificate));
  const message = `it is ${found}, and the certificate of ${certified}: tokenizer, chat template and other side files were not compared`;
  return { differences: [], findings: [difference("files-not-compared", message)], verdict: "unproven" };
}

function summarize(findings: readonly Finding[]): CertifiedFiles {
  const differences = findings.filter(({ severity }) => severity === "error").map(({ message }) => message);
  return { differences, findings, verdict: differences.length === 0 ? "same" : "different" };
}

/** Compares every byte outside the roles, file by file. */
async function compareSameFormat(
  side: ModelWithScales,
  { destination }: Certificate,
  signal: AbortSignal | undefined,
): Promise<readonly Finding[]> {
  const found = await digestFilesExceptRoles(side, await trailerIn(side.checkpoint.store), signal);
  const byPath = new Map(found.map((file) => [file.path, file]));
  const changed = destination.files.flatMap(({ path, size, sha256 }): readonly Finding[] => {
    const name = path === "" ? "the file" : path;
    const now = byPath.get(path);
    if (now === undefined) return changedFile(path, "file-absent", `${name} is missing`);
    if (now.size !== size) {
      return changedFile(path, "file-differs", `${name} has ${now.size} bytes, not ${size}`);
    }
    return now.sha256 === sha256 ? [] : changedFile(path, "file-differs", `${name} differs`);
  });
  const known = new Set([CARD_FILE, ...destination.files.map(({ path }) => path)]);
  const added = found.filter(({ path }) => !known.has(path));
  return [...changed, ...added.flatMap(({ path }) => uncertifiedFile(path))];
}

/** A certified file that differs. The model card is only a remark, because an upload writes it again. */
function changedFile(path: string, rule: string, message: string): readonly Finding[] {
  const at = { file: path };
  if (path === CARD_FILE) return [remark("card-changed", message, at)];
  return withSeverity("different", rule, message, at);
}

/** A file that was not certified. A carried file is judged by its name in the original folder. */
function uncertifiedFile(path: string): readonly Finding[] {
  const name = path.startsWith(ORIGIN_FOLDER) ? path.slice(ORIGIN_FOLDER.length) : path;
  const message = `${path} was not there when it was certified`;
  return withSeverity(sideFileKind(name).uncertified, "file-added", message, { file: path });
}

/** Compares side files with the certificate of a Hugging Face folder. Side files have the same names in every format. */
async function compareSideFiles(
  side: ModelWithScales,
  { destination }: Certificate,
): Promise<readonly Finding[]> {
  await using sideFiles = new SideFiles(side.checkpoint);
  const certified = new Map(destination.files.map(({ path, sha256 }) => [path, sha256]));
  const findings: Finding[] = [];
  for (const path of sideFiles.paths) {
    const then = certified.get(path);
    if (then === undefined) findings.push(...uncertifiedFile(path));
    else if (then !== (await sideFiles.digest(path))) {
      findings.push(
        ...withSeverity(sideFileKind(path).differs, "file-differs", `${path} differs`, { file: path }),
      );
    }
  }
  const { weightFiles, carriedFiles } = side.checkpoint;
  const weights = [...weightFiles.map(({ path }) => path), ...originHeaders(carriedFiles)];
  for (const path of certified.keys()) {
    const { missing } = sideFileKind(path);
    // the content root covers the weights and the settings of the config
    if (sideFiles.has(path) || weights.includes(path) || path === "config.json") continue;
    findings.push(...withSeverity(missing, "file-absent", `${path} is missing`, { file: path }));
  }
  return findings;
}

/** Weight files of the original folder. */
function originHeaders(origin: CarriedFiles | undefined): readonly string[] {
  const paths = (origin?.sidecars ?? []).map(({ path }) => path);
  return paths
    .filter((path) => path.startsWith(ORIGIN_HEADERS))
    .map((path) => path.slice(ORIGIN_HEADERS.length));
}
