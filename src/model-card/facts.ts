/** Facts for the model card of a local checkpoint, from its headers and its certificate, which must be valid. */

import { type Certificate, decodeCertificate } from "../certificate/certificate.ts";
import { findCertificate } from "../certificate/location.ts";
import { recheckCertificate } from "../certificate/recheck.ts";
import { storeAt } from "../checkpoint/store.ts";
import { IsologitError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { repoName } from "../io/address.ts";
import { isProven } from "../verify/verdict.ts";
import type { CardFacts, CardProof } from "./card.ts";
import { commandOf } from "./command.ts";

/** Facts of a checkpoint that `inspect` reports and the card uses. */
interface CheckpointSummary {
  readonly format: string;
  readonly family: string | null;
  readonly dtypes: Readonly<Record<string, unknown>>;
  readonly quantization: unknown;
}

export interface CardOptions {
  readonly baseModel?: string | undefined;
  /** reads the headers of a checkpoint: `inspect` of the library, which imports this folder and so is passed in */
  readonly inspect: (path: string) => Promise<CheckpointSummary>;
  readonly watch?: Watch;
  readonly signal?: AbortSignal | undefined;
}

/**
 * @returns undefined if the path is not a checkpoint
 * @throws CERTIFICATE_INVALID: the certificate cannot be read, or is not of these files
 */
export async function cardFacts(path: string, options: CardOptions): Promise<CardFacts | undefined> {
  const report = await options.inspect(path).catch((error) => {
    if (error instanceof IsologitError && error.exit === 3) return undefined;
    throw error;
  });
  if (report === undefined) return undefined;
  const certificate = await certificateIn(path, options);
  const base = options.baseModel ?? sourceRepo(certificate);
  const fp8 = Object.keys(report.dtypes).some((dtype) => dtype.startsWith("F8"));
  return {
    baseModel: base,
    recast:
      certificate === undefined ? report.quantization !== null : Object.keys(certificate.recast).length > 0,
    library: report.format === "hf" ? "transformers" : report.format === "packed" ? "isologit" : "nemo",
    tags: ["isologit", ...(report.family === null ? [] : [report.family]), ...(fp8 ? ["fp8"] : [])],
    proof: certificate === undefined ? undefined : proofOf(certificate, base),
  };
}

/** The certificate of these files; undefined without a certificate. Reads every byte to check the certificate. */
async function certificateIn(
  path: string,
  { watch, signal }: Pick<CardOptions, "watch" | "signal">,
): Promise<Certificate | undefined> {
  const found = await findCertificate(path, await storeAt(path)).catch((error) => {
    if (error instanceof IsologitError && error.code === "CERTIFICATE_MISSING") return undefined;
    throw error;
  });
  if (found === undefined) return undefined;
  const certificate = decodeCertificate(found.bytes, found.file);
  const running = { ...(watch !== undefined && { watch }), ...(signal !== undefined && { signal }) };
  const { verdict, rungs } = await recheckCertificate(path, { verify: "bytes", ...running });
  if (isProven(verdict)) return certificate;
  const differences = rungs.flatMap(({ metrics }): readonly unknown[] =>
    "differences" in metrics ? metrics.differences : [],
  );
  throw new IsologitError(
    "CERTIFICATE_INVALID",
    `the certificate is not of these files: ${differences.slice(0, 3).join(", ") || "they differ"}`,
    { file: found.file },
    { next: "convert again, or remove the certificate: then the card states that nothing was proved" },
  );
}

function sourceRepo(certificate: Certificate | undefined): string | undefined {
  const [, repo] = /^hf:\/\/([^/@]+\/[^/@]+)/.exec(certificate?.source.address ?? "") ?? [];
  return repo === undefined ? undefined : repoName(repo);
}

/** The facts of a certificate that the card repeats: numbers and words, no lists. */
const proofOf = (certificate: Certificate, base: string | undefined): CardProof => ({
  verdict: certificate.verdict,
  tool: certificate.tool,
  sha256: certificate.sha256,
  source: certificate.source.format,
  command: commandOf(certificate, base),
  rungs: certificate.rungs.map(({ rung, verdict, metrics }) => ({
    rung,
    verdict,
    metrics: Object.entries(metrics).map(([name, value]) => `${name} ${shown(value)}`),
  })),
});

const shown = (value: number | string): string =>
  typeof value === "string" || Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
