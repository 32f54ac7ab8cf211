/** What a card can say of a checkpoint on this machine: read from it, and from the certificate in it or beside it. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { formats } from "../../formats/index.ts";
import { IsologitError } from "../core/errors.ts";
import { isHubAddress, repoName } from "../io/locate.ts";
import { inspect } from "../survey/inspect.ts";
import type { CardFacts, Proof } from "./card.ts";

const CERTIFICATE = "isologit.certificate.json";

/** As much of a certificate as a card repeats. Whether it holds is for `verify` to say. */
const Certificate = z.object({
  tool: z.string(),
  sha256: z.string(),
  verdict: z.string(),
  source: z.object({ format: z.string().optional(), address: z.string().optional() }),
  destination: z.object({ format: z.string().optional() }).optional(),
  recast: z.record(z.string(), z.number()).default({}),
  rungs: z.array(
    z.object({
      rung: z.string(),
      verdict: z.string(),
      metrics: z.record(z.string(), z.unknown()).default({}),
    }),
  ),
});
type Certificate = z.infer<typeof Certificate>;

/** @returns undefined for what is no checkpoint: it has no card of ours */
export async function cardFacts(path: string, baseModel?: string): Promise<CardFacts | undefined> {
  const report = await inspect(path).catch((error) => {
    if (error instanceof IsologitError && error.exit === 3) return undefined;
    throw error;
  });
  if (report === undefined) return undefined;
  const certificate = await readCertificate(path);
  const recast =
    certificate === undefined ? report.quantization !== null : Object.keys(certificate.recast).length > 0;
  const base = baseModel ?? sourceRepo(certificate);
  const fp8 = Object.keys(report.dtypes).some((dtype) => dtype.startsWith("F8"));
  return {
    baseModel: base,
    recast,
    library: report.format === "hf" ? "transformers" : report.format === "packed" ? "isologit" : "nemo",
    tags: ["isologit", ...(report.family === null ? [] : [report.family]), ...(fp8 ? ["fp8"] : [])],
    command: certificate === undefined ? undefined : commandOf(certificate, report.format, base),
    proof: certificate === undefined ? undefined : proofOf(certificate),
  };
}

/** In the folder, else beside the file; undefined where there is none that can be read. */
async function readCertificate(path: string): Promise<Certificate | undefined> {
  for (const place of [join(path, CERTIFICATE), `${path}.${CERTIFICATE}`]) {
    const text = await readFile(place, "utf8").catch(() => undefined);
    if (text === undefined) continue;
    try {
      return Certificate.safeParse(JSON.parse(text)).data;
    } catch {
      return undefined;
    }
  }
  return undefined;
}

function sourceRepo(certificate: Certificate | undefined): string | undefined {
  const address = certificate?.source.address;
  if (address === undefined || !isHubAddress(address)) return undefined;
  const [, repo] = /^hf:\/\/([^/@]+\/[^/@]+)/i.exec(address) ?? [];
  return repo === undefined ? undefined : repoName(repo);
}

/** The types that a recast writes, as the command line calls them. */
const FLAGS: Readonly<Record<string, string>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  F8_E4M3: "fp8-e4m3",
  F8_E5M2: "fp8-e5m2",
};

function commandOf({ recast }: Certificate, format: string, base: string | undefined): string {
  const to = Object.keys(recast).map((change) => FLAGS[change.split(" to ")[1] ?? ""]);
  const dtype = to.find((flag) => flag !== undefined);
  const writes = formats.find(({ id }) => id === format)?.writes;
  const out = `./out${writes?.endings[0] ?? ""}`;
  const source = base === undefined ? "SRC" : `hf://${base}`;
  return `npx isologit convert ${source} ${out} --to ${format}${dtype === undefined ? "" : ` --dtype ${dtype}`}`;
}

/** Numbers and words; lists and tables stay in the certificate. */
const proofOf = ({ verdict, tool, sha256, rungs }: Certificate): Proof => ({
  verdict,
  tool,
  sha256,
  rungs: rungs.map(({ rung, verdict: one, metrics }) => ({
    rung,
    verdict: one,
    metrics: Object.entries(metrics).flatMap(([name, value]) =>
      typeof value === "number" || typeof value === "string" ? [`${name} ${shown(value)}`] : [],
    ),
  })),
});

const shown = (value: number | string): string =>
  typeof value === "string" || Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
