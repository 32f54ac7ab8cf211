/**
 * The certificate: one canonical JSON document that says what was compared, how, and with which outcome, and holds
 * what is needed to check it again without the source. It carries its own hash, so that an edited one is refused, and
 * perhaps a signature. Nothing in it depends on the time, the machine or a path.
 */
import { z } from "zod";
import { Conversion, HubPlace } from "../convert/conversion-record.ts";
import type { Leaf } from "../core/content-root.ts";
import { IsologitError } from "../core/errors.ts";
import { canonicalJson, sha256 } from "../core/hash.ts";
import { parseJsonObject } from "../core/json.ts";
import { Fingerprint } from "../inference/fingerprint.ts";
import { Signature, verifySignature } from "../signing/ed25519.ts";

const hex = z.string().regex(/^[0-9a-f]{64}$/);
const identity = { format: z.string(), dialect: z.string(), root: hex };

const Body = z.strictObject({
  kind: z.literal("isologit certificate"),
  version: z.literal(1),
  /** name and version of what issued it */
  tool: z.string(),
  /** its address, pinned to a commit, where it was read on the Hub; a path is in no certificate */
  source: z.strictObject({ ...identity, address: HubPlace.exactOptional() }),
  destination: z.strictObject({
    ...identity,
    files: z.array(z.strictObject({ path: z.string(), size: z.int().nonnegative(), sha256: hex })).readonly(),
  }),
  /** digest of the conversion's plan */
  plan: z.string(),
  /** the options that decide the destination's bytes; absent where none was given */
  conversion: Conversion.exactOptional(),
  /** roles by what was done to them, as "BF16 to F8_E4M3": 12; empty where every bit was kept */
  recast: z.record(z.string(), z.int().positive()),
  verdict: z.enum(["same", "within"]),
  /** null where no forward pass ran, and so no prompt was read */
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
  /** whether logits recorded by other software were met */
  reference: z.boolean(),
  /** by role, a digest of its type, shape, scale and elements */
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

/** The document's bytes: canonical JSON, and a newline. */
export function encodeCertificate(certificate: Certificate): Uint8Array {
  return Buffer.from(`${canonicalJson(certificate)}\n`);
}

export function sealCertificate(body: CertificateBody): Certificate {
  return { ...body, sha256: sha256(canonicalJson(body)) };
}

/**
 * @throws CERTIFICATE_INVALID for any text that is not byte for byte what `encodeCertificate` gave, and for a signature
 *   that is not of this text
 */
export function decodeCertificate(bytes: Uint8Array, file: string): Certificate {
  const refuse = (message: string) => new IsologitError("CERTIFICATE_INVALID", message, { file });
  const value = parseJsonObject(bytes, { file, code: "CERTIFICATE_INVALID" });
  const parsed = Certificate.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw refuse(`it is no certificate of this version: ${issue.path.join(".")}: ${issue.message}`);
  }
  const { sha256: said, signature, ...body } = parsed.data;
  if (sha256(canonicalJson(body)) !== said) throw refuse("its text is not the text that was sealed");
  if (!Buffer.from(encodeCertificate(parsed.data)).equals(bytes)) throw refuse("it is not in canonical form");
  if (signature !== undefined && !verifySignature(said, signature))
    throw refuse("its signature is not of this text");
  return parsed.data;
}
