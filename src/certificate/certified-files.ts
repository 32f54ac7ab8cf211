/** Files of a checkpoint against those that its certificate lists. */

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

export interface CertifiedFiles {
  /** what differs or is missing, as text */
  readonly differences: readonly string[];
  /** those of `differences` too, and what was added */
  readonly findings: readonly Finding[];
  readonly verdict: RungReport["verdict"];
}

/**
 * A certificate speaks for the files of one format. In another format the root, which the settings enter, must be the
 * same, and the side files are compared as far as the certificate knows them.
 *
 * @param file  where the certificate was found
 * @param named the certificate was asked for by its path
 * @throws CERTIFICATE_INVALID for one of another format that was found in its place
 */
export async function compareCertifiedFiles(
  side: ModelWithScales,
  certificate: Certificate,
  { file, named, signal }: { file: string; named: boolean; signal: AbortSignal | undefined },
): Promise<CertifiedFiles> {
  const [found, certified] = [side.checkpoint.format, certificate.destination.format];
  if (found === certified) return judged(await sameFormat(side, certificate, signal));
  if (!named) {
    const message = `it was issued for a checkpoint of format ${certified}, and this one is ${found}`;
    const next = `verify it against its source, or name the certificate of the ${certified} checkpoint with \`certificate\``;
    throw new IsologitError("CERTIFICATE_INVALID", message, { file }, { next });
  }
  if (certified === "hf") return judged(await sideFilesOf(side, certificate));
  const message = `it is ${found}, and the certificate of ${certified}: tokenizer, chat template and other side files were not compared`;
  return { differences: [], findings: [difference("files-not-compared", message)], verdict: "unproven" };
}

function judged(findings: readonly Finding[]): CertifiedFiles {
  const differences = findings.filter(({ severity }) => severity === "error").map(({ message }) => message);
  return { differences, findings, verdict: differences.length === 0 ? "same" : "different" };
}

/** Every byte outside the roles, file by file. */
async function sameFormat(
  side: ModelWithScales,
  { destination }: Certificate,
  signal: AbortSignal | undefined,
): Promise<readonly Finding[]> {
  const found = await digestFilesExceptRoles(side, await trailerIn(side.checkpoint.store), signal);
  const byPath = new Map(found.map((file) => [file.path, file]));
  const changed = destination.files.flatMap(({ path, size, sha256 }): readonly Finding[] => {
    const name = path === "" ? "the file" : path;
    const now = byPath.get(path);
    if (now === undefined) return broken(path, "file-absent", `${name} is missing`);
    if (now.size !== size) {
      return broken(path, "file-differs", `${name} has ${now.size} bytes, not ${size}`);
    }
    return now.sha256 === sha256 ? [] : broken(path, "file-differs", `${name} differs`);
  });
  const known = new Set([CARD_FILE, ...destination.files.map(({ path }) => path)]);
  const added = found.filter(({ path }) => !known.has(path));
  return [...changed, ...added.flatMap(({ path }) => uncertified(path))];
}

/** A certified file that is not as it was; an upload writes the model card anew. */
function broken(path: string, rule: string, message: string): readonly Finding[] {
  const at = { file: path };
  if (path === CARD_FILE) return [remark("card-changed", message, at)];
  return withSeverity("different", rule, message, at);
}

/** What was kept for the way home is judged as what it will be there. */
function uncertified(path: string): readonly Finding[] {
  const name = path.startsWith(ORIGIN_FOLDER) ? path.slice(ORIGIN_FOLDER.length) : path;
  const message = `${path} was not there when it was certified`;
  return withSeverity(sideFileKind(name).uncertified, "file-added", message, { file: path });
}

/** Side files against the certificate of a Hugging Face folder, whose files have the names that side files have everywhere. */
async function sideFilesOf(side: ModelWithScales, { destination }: Certificate): Promise<readonly Finding[]> {
  await using held = new SideFiles(side.checkpoint);
  const certified = new Map(destination.files.map(({ path, sha256 }) => [path, sha256]));
  const findings: Finding[] = [];
  for (const path of held.paths) {
    const then = certified.get(path);
    if (then === undefined) findings.push(...uncertified(path));
    else if (then !== (await held.digest(path))) {
      findings.push(
        ...withSeverity(sideFileKind(path).differs, "file-differs", `${path} differs`, { file: path }),
      );
    }
  }
  const { weightFiles, carriedFiles } = side.checkpoint;
  const weights = [...weightFiles.map(({ path }) => path), ...originHeaders(carriedFiles)];
  for (const path of certified.keys()) {
    const { missing } = sideFileKind(path);
    // the root has the weights, and what a config means
    if (held.has(path) || weights.includes(path) || path === "config.json") continue;
    findings.push(...withSeverity(missing, "file-absent", `${path} is missing`, { file: path }));
  }
  return findings;
}

/** Weight files of the folder that the model came from. */
function originHeaders(origin: CarriedFiles | undefined): readonly string[] {
  const paths = (origin?.sidecars ?? []).map(({ path }) => path);
  return paths
    .filter((path) => path.startsWith(ORIGIN_HEADERS))
    .map((path) => path.slice(ORIGIN_HEADERS.length));
}
