/** Ed25519 signatures of certificates with a local key. `node:crypto` signs and checks them; no network is used. */
import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { IsologitError, systemError } from "../core/errors.ts";
import { sha256 } from "../core/hash.ts";

export const Signature = z.strictObject({
  algorithm: z.literal("ed25519"),
  /** DER (SubjectPublicKeyInfo), base64 */
  publicKey: z.base64(),
  value: z.base64(),
});
export type Signature = z.infer<typeof Signature>;

/** The signed bytes: the hash of the certificate after a prefix, so that the signature is valid for nothing else. */
const messageOf = (digest: string): Uint8Array => Buffer.from(`isologit certificate\n${digest}\n`);

/** @throws USAGE: the PEM file has no Ed25519 key of this sort; NOT_FOUND */
export async function readKey(path: string, sort: "private" | "public"): Promise<KeyObject> {
  const key = await readPem(path, sort);
  if (key.asymmetricKeyType === "ed25519") return key;
  throw new IsologitError("USAGE", `the key is ${key.asymmetricKeyType}, expected ed25519`, { file: path });
}

/** @throws USAGE: the PEM file has no key of this sort; NOT_FOUND */
export async function readPem(path: string, sort: "private" | "public"): Promise<KeyObject> {
  try {
    const pem = await readFile(path);
    return sort === "private" ? createPrivateKey(pem) : createPublicKey(pem);
  } catch (cause) {
    const known = systemError(cause, { file: path });
    if (known instanceof IsologitError) throw known;
    throw new IsologitError("USAGE", `the file has no ${sort} key in PEM form`, { file: path }, { cause });
  }
}

export function signDigest(digest: string, privateKey: KeyObject): Signature {
  const publicKey = derOf(createPublicKey(privateKey));
  const value = sign(null, messageOf(digest), privateKey).toString("base64");
  return { algorithm: "ed25519", publicKey, value };
}

export function verifySignature(digest: string, { publicKey, value }: Signature): boolean {
  try {
    const key = createPublicKey({ key: Buffer.from(publicKey, "base64"), format: "der", type: "spki" });
    if (key.asymmetricKeyType !== "ed25519" || derOf(key) !== publicKey) return false;
    const bytes = Buffer.from(value, "base64");
    return bytes.toString("base64") === value && verify(null, messageOf(digest), key, bytes);
  } catch {
    return false; // the public key cannot be parsed
  }
}

/** SHA-256 of the public key, for a person to compare. */
export const fingerprintOf = ({ publicKey }: Pick<Signature, "publicKey">): string =>
  sha256(Buffer.from(publicKey, "base64"));

export function derOf(publicKey: KeyObject): string {
  return publicKey.export({ format: "der", type: "spki" }).toString("base64");
}
