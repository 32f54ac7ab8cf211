/** Ed25519 signatures of certificates, with a local key: checked offline, by `node:crypto` alone. */
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

/** What is signed: the certificate's hash, after words that keep the signature from meaning anything else. */
const messageOf = (digest: string): Uint8Array => Buffer.from(`isologit certificate\n${digest}\n`);

/** @throws USAGE, NOT_FOUND: a PEM file that holds no Ed25519 key of this sort */
export async function readKey(path: string, sort: "private" | "public"): Promise<KeyObject> {
  const key = await readPem(path, sort);
  if (key.asymmetricKeyType === "ed25519") return key;
  throw new IsologitError("USAGE", `its key is ${key.asymmetricKeyType}, expected ed25519`, { file: path });
}

/** @throws USAGE, NOT_FOUND: a PEM file that holds no key of this sort */
export async function readPem(path: string, sort: "private" | "public"): Promise<KeyObject> {
  try {
    const pem = await readFile(path);
    return sort === "private" ? createPrivateKey(pem) : createPublicKey(pem);
  } catch (cause) {
    const known = systemError(cause, { file: path });
    if (known instanceof IsologitError) throw known;
    throw new IsologitError("USAGE", `it holds no ${sort} key in PEM form`, { file: path }, { cause });
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
    return false; // no key at all
  }
}

/** The key that signed, as a person compares it. */
export const fingerprintOf = ({ publicKey }: Pick<Signature, "publicKey">): string =>
  sha256(Buffer.from(publicKey, "base64"));

export function derOf(publicKey: KeyObject): string {
  return publicKey.export({ format: "der", type: "spki" }).toString("base64");
}
