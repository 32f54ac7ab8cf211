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
  readonly bytes: number;
  readonly dtypes: Readonly<Record<string, { readonly tensors: number; readonly bytes: number }>>;
  readonly quantization: Readonly<Record<string, unknown>> | null;
}

export interface CardOptions {
  readonly baseModel?: string | undefined;
  /** id of a licence, as the Hub names it */
  readonly license?: string | undefined;
  /** reads the headers of a checkpoint: `inspect` of the library, which imports this folder and so is passed in */
  readonly inspect: (path: string) => Promise<CheckpointSummary>;
  readonly watch?: Watch;
  readonly signal?: AbortSignal | undefined;
}

/**
 * @returns undefined if the path is not a checkpoint
 * @throws CERTIFICATE_INVALID: the certificate cannot be read, or is not of these files
 */
export async function cardFacts(
  path: string,
  repo: string,
  options: CardOptions,
): Promise<CardFacts | undefined> {
  const report = await options.inspect(path).catch((error) => {
    if (error instanceof IsologitError && error.exit === 3) return undefined;
    throw error;
  });
  if (report === undefined) return undefined;
  const { format, bytes, dtypes, quantization } = report;
  const certificate = await certificateIn(path, options);
  const base = options.baseModel ?? sourceRepo(certificate);
  const fp8 = Object.keys(dtypes).some((dtype) => dtype.startsWith("F8"));
  return {
    ...{ repo, format, bytes, license: options.license, baseModel: base },
    quantMethod: typeof quantization?.method === "string" ? quantization.method : null,
    bytesBefore: bytesBefore(bytes, dtypes, certificate?.recast ?? {}),
    recast: certificate === undefined ? quantization !== null : Object.keys(certificate.recast).length > 0,
    library: format === "hf" ? "transformers" : format === "packed" ? "isologit" : "nemo",
    tags: ["isologit", ...(report.family === null ? [] : [report.family]), ...(fp8 ? ["fp8"] : [])],
    proof: certificate === undefined ? undefined : proofOf(certificate, base),
  };
}

/** Bytes of a dtype that a recast may name. */
const WIDTHS: Readonly<Record<string, number>> = { F32: 4, BF16: 2, F16: 2, F8_E4M3: 1, F8_E5M2: 1 };

/** Size of the tensors before a recast to a dtype that the source did not have; undefined if that is not certain. */
function bytesBefore(
  bytes: number,
  dtypes: CheckpointSummary["dtypes"],
  recast: Certificate["recast"],
): number | undefined {
  const [[what, count] = ["", 0], ...others] = Object.entries(recast);
  const [from = "", to = ""] = what.split(" to ");
  const [width, cast] = [WIDTHS[from], dtypes[to]];
  if (others.length > 0 || !to.startsWith("F8") || width === undefined || cast?.tensors !== count)
    return undefined;
  return bytes + cast.bytes * (width - 1);
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
  tool: [certificate.tool, ...(certificate.plugins ?? [])].join(" with "),
  sha256: certificate.sha256,
  source: certificate.source.format,
  recast: certificate.recast,
  recipe: recipeText(certificate),
  limits: certificate.limits,
  logits: logitsOf(certificate),
  command: commandOf(certificate, base),
  rungs: certificate.rungs.map(({ rung, verdict, metrics }) => ({
    rung,
    verdict,
    metrics: Object.entries(metrics).map(([name, value]) => `${name} ${shown(value)}`),
  })),
});

function recipeText({ recast, conversion }: Certificate): string | undefined {
  if (Object.keys(recast).length === 0 || conversion === undefined) return undefined;
  const { recipe } = conversion;
  if (typeof recipe === "string") return `The recipe \`${recipe}\` chose them.`;
  return recipe === undefined ? undefined : "The recipe in the command chose them.";
}

/** Measures of the two forward passes. */
function logitsOf({ rungs }: Certificate): CardProof["logits"] {
  const { tokens, klMean, top1 } = rungs.find(({ rung }) => rung === "logits")?.metrics ?? {};
  const isKnown = typeof tokens === "number" && typeof klMean === "number" && typeof top1 === "number";
  return isKnown ? { tokens, klMean, top1 } : undefined;
}

const shown = (value: number | string): string =>
  typeof value === "string" || Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
