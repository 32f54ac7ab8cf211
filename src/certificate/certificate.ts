/**
 * The certificate: a canonical JSON document with the comparisons, their results, and the data that a check without the
 * source needs. It contains its own hash, so that an edited certificate is refused, and may contain a signature. No field
 * depends on the time, the machine or a path.
 */

import { z } from "zod";
import { Conversion, HubPlace } from "../convert/conversion-record.ts";
import type { Leaf } from "../core/content-root.ts";
import { IsologitError } from "../core/errors.ts";
import { canonicalJson, sha256 } from "../core/hash.ts";
import { parseJsonObject } from "../core/json.ts";
import { Fingerprint } from "../inference/fingerprint.ts";
import { PLUGIN_TEXT } from "../plugins/plugin.ts";
import { Signature, verifySignature } from "../signing/ed25519.ts";

const hex = z.string().regex(/^[0-9a-f]{64}$/);
const identity = { format: z.string(), dialect: z.string(), root: hex };

const count = z.int().nonnegative();
const indices = z.array(count).readonly();
const finite = z.number().or(z.literal(["NaN", "Infinity", "-Infinity"]));

/** What a pruned model has kept of the source, by the numbers of the source, and what that cost. */
export const CutRecord = z.strictObject({
  layers: indices,
  ffn: z.record(z.string(), indices),
  mambaHeads: z.record(z.string(), indices),
  heads: z.record(z.string(), indices),
  hidden: indices.nullable(),
  /** gains of gated norms are those of the source times √(all heads / kept heads); absent: no value is derived */
  rescaledGains: z.literal(true).exactOptional(),
  /** the options that chose it */
  score: z.string(),
  layerScore: z.string(),
  /** the layers that went one at a time, each after a new measurement; absent if they were chosen at once */
  dropOrder: indices.exactOptional(),
  damage: z
    .strictObject({
      tokens: count,
      ...{ klMean: finite, top1: finite, nllParent: finite, nllPruned: finite },
      ...{ accuracyParent: finite, accuracyPruned: finite },
    })
    .nullable(),
});
export type CutRecord = z.infer<typeof CutRecord>;

const Body = z.strictObject({
  kind: z.literal("isologit certificate"),
  version: z.literal(1),
  /** name and version of the program that issued the certificate */
  tool: z.string(),
  /** names and versions of its plug-ins; absent if it had none */
  plugins: z.array(z.string().regex(PLUGIN_TEXT)).min(1).readonly().exactOptional(),
  /** `address`: on the Hub, with the commit; absent for a local source, because a certificate contains no path */
  source: z.strictObject({ ...identity, address: HubPlace.exactOptional() }),
  destination: z.strictObject({
    ...identity,
    files: z.array(z.strictObject({ path: z.string(), size: z.int().nonnegative(), sha256: hex })).readonly(),
  }),
  /** id of the plan of the conversion */
  plan: z.string(),
  /** the options that decide the bytes of the destination; absent if no option was given */
  conversion: Conversion.exactOptional(),
  /** absent unless the destination was pruned */
  cut: CutRecord.exactOptional(),
  /** number of roles by recast, such as "BF16 to F8_E4M3": 12; empty if no role was recast */
  recast: z.record(z.string(), z.int().positive()),
  verdict: z.enum(["same", "within"]),
  /** null if no forward pass ran, as is `prompt` */
  backend: z.string().nullable(),
  prompt: z
    .strictObject({
      ids: z.array(z.int().nonnegative()).readonly(),
      textTokens: z.int().nonnegative(),
      text: z.string().nullable(),
      seed: z.int().nonnegative().nullable(),
    })
    .nullable(),
  rungs: z
    .array(
      z.strictObject({
        rung: z.enum(["cover", "bytes", "logits", "reference"]),
        verdict: z.enum(["same", "within"]),
        metrics: z.record(z.string(), z.number().or(z.string())),
      }),
    )
    .readonly(),
  limits: z.record(z.string(), z.number()),
  /** the logits agree with logits that other software recorded */
  reference: z.boolean(),
  /** digest of the dtype, shape, scale and elements of each role */
  leaves: z.record(z.string(), hex),
  fingerprint: Fingerprint.nullable(),
});
export type CertificateBody = z.infer<typeof Body>;

const Certificate = Body.extend({ sha256: hex, signature: Signature.exactOptional() });
export type Certificate = z.infer<typeof Certificate>;

export const digestOfLeaf = (leaf: Leaf): string =>
  sha256(
    canonicalJson([leaf.key, leaf.dtype, leaf.shape, leaf.sha256, leaf.scale && Array.from(leaf.scale)]),
  );

/** The bytes of the document: canonical JSON and a newline. */
export function encodeCertificate(certificate: Certificate): Uint8Array {
  return Buffer.from(`${canonicalJson(certificate)}\n`);
}

export function sealCertificate(body: CertificateBody): Certificate {
  return { ...body, sha256: sha256(canonicalJson(body)) };
}

/**
 * Parses a certificate and checks its hash and its signature.
 *
 * @throws CERTIFICATE_INVALID: the bytes are not the output of `encodeCertificate`, or the signature does not match them
 */
export function decodeCertificate(bytes: Uint8Array, file: string): Certificate {
  const refuse = (message: string) => new IsologitError("CERTIFICATE_INVALID", message, { file });
  const value = parseJsonObject(bytes, { file, code: "CERTIFICATE_INVALID" });
  const parsed = Certificate.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw refuse(`the file is not a certificate of this version: ${issue.path.join(".")}: ${issue.message}`);
  }
  const { sha256: digest, signature, ...body } = parsed.data;
  if (sha256(canonicalJson(body)) !== digest) throw refuse("its text is not the text that was sealed");
  if (!Buffer.from(encodeCertificate(parsed.data)).equals(bytes)) throw refuse("it is not in canonical form");
  if (signature !== undefined && !verifySignature(digest, signature))
    throw refuse("its signature is not of this text");
  return parsed.data;
}
