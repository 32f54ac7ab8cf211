/**
 * Sigstore bundles: a signed statement with all that is needed to check it offline. The libraries are loaded when a
 * bundle is made or read, and not before.
 */
import { createHash, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import type { BundleWithDsseEnvelope } from "@sigstore/bundle";
import type { Signer, TrustMaterial } from "@sigstore/verify";
import { type ErrorCode, IsologitError } from "../core/errors.ts";
import { parseJsonObject } from "../core/json.ts";
import { readPem } from "./ed25519.ts";
import { PAYLOAD_TYPE } from "./statement.ts";

/** Hash of a signature, by OpenSSL's name of the key's curve: all that model signing allows. */
const HASHES: Readonly<Record<string, string>> = {
  prime256v1: "sha256",
  secp384r1: "sha384",
  secp521r1: "sha512",
};

/** Whom to believe: a key, or a certificate authority with its logs, for one identity vouched for by one issuer. */
export type Trust =
  | { readonly kind: "key"; readonly key: KeyObject }
  | {
      readonly kind: "authority";
      readonly material: TrustMaterial;
      readonly identity: string;
      readonly issuer: string;
    };

export interface SignedStatement {
  readonly payload: Uint8Array;
  /** the key's SHA-256, or the identity in the signing certificate */
  readonly signedBy: string;
  /** who vouched for the identity; null for a key */
  readonly issuer: string | null;
}

/** The text of a bundle over a statement, and who signed it. */
export type BundleSigner = (payload: Buffer) => Promise<By & { readonly text: string }>;

/** @throws USAGE, NOT_FOUND: a PEM file that holds no key of this sort on a curve that model signing knows */
export async function readCurveKey(path: string, sort: "private" | "public"): Promise<KeyObject> {
  const key = await readPem(path, sort);
  if (hashFor(key) !== undefined) return key;
  const kind = key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType;
  throw new IsologitError("USAGE", `its key is ${kind}, and a bundle takes P-256, P-384 or P-521`, {
    file: path,
  });
}

/**
 * Certificate authorities and logs of a `trusted_root.json`, as Sigstore publishes it and as private instances have one.
 *
 * @throws USAGE
 */
export async function readAuthorities(bytes: Uint8Array, file: string): Promise<TrustMaterial> {
  const value = parseJsonObject(bytes, { file, code: "USAGE" });
  const [{ TrustedRoot }, { toTrustMaterial }] = await Promise.all([
    import("@sigstore/protobuf-specs"),
    import("@sigstore/verify"),
  ]);
  return attempt(() => toTrustMaterial(TrustedRoot.fromJSON(value)), "USAGE", "it is no trusted root", file);
}

/** The key is named as it is in the bundle. */
export async function signBundle(payload: Buffer, privateKey: KeyObject): ReturnType<BundleSigner> {
  const [{ bundleToJSON, toDSSEBundle }, { dsse }] = await Promise.all([
    import("@sigstore/bundle"),
    import("@sigstore/core"),
  ]);
  const signature = sign(hashFor(privateKey), dsse.preAuthEncoding(PAYLOAD_TYPE, payload), privateKey);
  const keyHint = hintOf(createPublicKey(privateKey));
  const bundle = toDSSEBundle({ artifact: payload, artifactType: PAYLOAD_TYPE, signature, keyHint });
  return { text: `${JSON.stringify(bundleToJSON(bundle))}\n`, signedBy: keyHint, issuer: null };
}

/**
 * What a bundle's signer signed, once it is known to be the trusted one.
 *
 * @throws BUNDLE_INVALID: damaged, edited, or no bundle; BUNDLE_UNTRUSTED: another signed it; USAGE: a signature of the
 *   other kind than the trust
 */
export async function openBundle(bytes: Uint8Array, trust: Trust, file: string): Promise<SignedStatement> {
  const bundle = await parse(bytes, file);
  const { payload, payloadType } = bundle.content.dsseEnvelope;
  const by =
    trust.kind === "key" ? await byKey(bundle, trust.key, file) : await byAuthority(bundle, trust, file);
  if (payloadType !== PAYLOAD_TYPE) {
    throw new IsologitError("BUNDLE_INVALID", `it signs ${payloadType}, expected ${PAYLOAD_TYPE}`, { file });
  }
  return { payload, ...by };
}

type By = Omit<SignedStatement, "payload">;

async function parse(bytes: Uint8Array, file: string): Promise<BundleWithDsseEnvelope> {
  const value = parseJsonObject(bytes, { file, code: "BUNDLE_INVALID" });
  const { bundleFromJSON, isBundleWithDsseEnvelope } = await import("@sigstore/bundle");
  const bundle = attempt(() => bundleFromJSON(value), "BUNDLE_INVALID", "it is no Sigstore bundle", file);
  if (isBundleWithDsseEnvelope(bundle)) return bundle;
  throw new IsologitError("BUNDLE_INVALID", "it signs bytes, expected a statement in an envelope", { file });
}

async function byKey(bundle: BundleWithDsseEnvelope, key: KeyObject, file: string): Promise<By> {
  const { content } = bundle.verificationMaterial;
  if (content.$case !== "publicKey") {
    throw new IsologitError(
      "USAGE",
      "it was signed with a certificate, and a key was given",
      { file },
      {
        next: "give `trustedRoot`, `sigstoreIdentity` and `sigstoreIssuer` instead of `publicKey`",
      },
    );
  }
  const { hint } = content.publicKey;
  const own = hintOf(key);
  // bundles of before model_signing 1.1 have no hint
  if (hint !== "" && hint !== own) {
    throw new IsologitError("BUNDLE_UNTRUSTED", `it was signed with the key ${hint}, not ${own}`, { file });
  }
  const { dsse } = await import("@sigstore/core");
  const { payload, payloadType, signatures } = bundle.content.dsseEnvelope;
  const signature = signatures[0]!.sig; // the parser refuses any other number than one
  if (verify(hashFor(key), dsse.preAuthEncoding(payloadType, payload), key, signature)) {
    return { signedBy: own, issuer: null };
  }
  throw new IsologitError("BUNDLE_INVALID", "its signature is not of its text with this key", { file });
}

async function byAuthority(
  bundle: BundleWithDsseEnvelope,
  { material, identity, issuer }: Extract<Trust, { kind: "authority" }>,
  file: string,
): Promise<By> {
  const { content } = bundle.verificationMaterial;
  if (content.$case === "publicKey") {
    throw new IsologitError(
      "USAGE",
      "it was signed with a key, and a trusted root was given",
      { file },
      {
        next: "give the key with `publicKey`",
      },
    );
  }
  const { toSignedEntity, Verifier } = await import("@sigstore/verify");
  let signer: Signer;
  try {
    // one signed certificate timestamp, one log entry and one trusted time at least: the library's own minimum
    signer = new Verifier(material).verify(toSignedEntity(bundle));
  } catch (cause) {
    const untrusted = (cause as { code?: unknown }).code === "CERTIFICATE_ERROR";
    throw new IsologitError(
      untrusted ? "BUNDLE_UNTRUSTED" : "BUNDLE_INVALID",
      `the trusted root does not bear it out: ${(cause as Error).message}`,
      { file },
      { cause },
    );
  }
  const { subjectAlternativeName: found, extensions } = signer.identity ?? {};
  // compared here: the library would take the identity for a pattern, in which a dot is any letter
  if (found !== identity || extensions?.issuer !== issuer) {
    const who = `${found ?? "nobody"} (${extensions?.issuer ?? "no issuer"})`;
    throw new IsologitError("BUNDLE_UNTRUSTED", `${who} signed it, not ${identity} (${issuer})`, { file });
  }
  return { signedBy: identity, issuer };
}

function attempt<T>(work: () => T, code: ErrorCode, message: string, file: string): T {
  try {
    return work();
  } catch (cause) {
    throw new IsologitError(code, `${message}: ${(cause as Error).message}`, { file }, { cause });
  }
}

const hashFor = (key: KeyObject): string | undefined => HASHES[key.asymmetricKeyDetails?.namedCurve ?? ""];

/** How model signing names a key: the SHA-256 of its PEM text. */
const hintOf = (publicKey: KeyObject): string =>
  createHash("sha256")
    .update(publicKey.export({ format: "pem", type: "spki" }))
    .digest("hex");
