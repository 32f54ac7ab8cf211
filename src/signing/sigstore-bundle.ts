/**
 * Sigstore bundles: a signed statement with all data that an offline check needs. The libraries are imported when a bundle
 * is written or read, so that other commands start faster.
 */
import { createHash, createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import type { BundleWithDsseEnvelope } from "@sigstore/bundle";
import type { Signer, TrustMaterial } from "@sigstore/verify";
import { type ErrorCode, IsologitError } from "../core/errors.ts";
import { parseJsonObject } from "../core/json.ts";
import { readPem } from "./ed25519.ts";
import { PAYLOAD_TYPE } from "./statement.ts";

/** Hash of a signature, by OpenSSL's name of the curve of the key. Model signing allows only these curves. */
const HASHES: Readonly<Record<string, string>> = {
  prime256v1: "sha256",
  secp384r1: "sha384",
  secp521r1: "sha512",
};

/** The trusted signer: a key, or one identity of one issuer that a certificate authority and its logs confirm. */
export type Trust =
  | { readonly kind: "key"; readonly key: KeyObject }
  | {
      readonly kind: "authority";
      readonly material: TrustMaterial;
      readonly identity: string;
      readonly issuer: string;
    };

interface SignedStatement {
  readonly payload: Uint8Array;
  /** SHA-256 of the key, or the identity in the signing certificate */
  readonly signedBy: string;
  /** issuer of the identity; null for a key */
  readonly issuer: string | null;
}

/** Signs a statement. The result is the text of the bundle and the signer. */
export type BundleSigner = (payload: Buffer) => Promise<Signatory & { readonly text: string }>;

/** @throws USAGE: the PEM file has no key of this sort on a curve of model signing; NOT_FOUND */
export async function readCurveKey(path: string, sort: "private" | "public"): Promise<KeyObject> {
  const key = await readPem(path, sort);
  if (hashFor(key) !== undefined) return key;
  const kind = key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType;
  throw new IsologitError("USAGE", `the key is ${kind}, and a bundle takes P-256, P-384 or P-521`, {
    file: path,
  });
}

/**
 * Reads the certificate authorities and logs in a `trusted_root.json` of Sigstore or of a private instance.
 *
 * @throws USAGE
 */
export async function readAuthorities(bytes: Uint8Array, file: string): Promise<TrustMaterial> {
  const value = parseJsonObject(bytes, { file, code: "USAGE" });
  const [{ TrustedRoot }, { toTrustMaterial }] = await Promise.all([
    import("@sigstore/protobuf-specs"),
    import("@sigstore/verify"),
  ]);
  return attempt(
    () => toTrustMaterial(TrustedRoot.fromJSON(value)),
    "USAGE",
    "the file is not a trusted root",
    file,
  );
}

/** Signs with a key. The bundle names the key by its SHA-256. */
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
 * Checks that the trusted signer signed a bundle, and returns the signed payload.
 *
 * @throws BUNDLE_INVALID: damaged, edited, or not a bundle; BUNDLE_UNTRUSTED: another signer; USAGE: the bundle has a
 *   signature of the other kind
 */
export async function openBundle(bytes: Uint8Array, trust: Trust, file: string): Promise<SignedStatement> {
  const bundle = await parseBundle(bytes, file);
  const { payload, payloadType } = bundle.content.dsseEnvelope;
  const by =
    trust.kind === "key"
      ? await checkKey(bundle, trust.key, file)
      : await checkAuthority(bundle, trust, file);
  if (payloadType !== PAYLOAD_TYPE) {
    throw new IsologitError("BUNDLE_INVALID", `the bundle signs ${payloadType}, expected ${PAYLOAD_TYPE}`, {
      file,
    });
  }
  return { payload, ...by };
}

type Signatory = Omit<SignedStatement, "payload">;

async function parseBundle(bytes: Uint8Array, file: string): Promise<BundleWithDsseEnvelope> {
  const value = parseJsonObject(bytes, { file, code: "BUNDLE_INVALID" });
  const { bundleFromJSON, isBundleWithDsseEnvelope } = await import("@sigstore/bundle");
  const bundle = attempt(
    () => bundleFromJSON(value),
    "BUNDLE_INVALID",
    "the file is not a Sigstore bundle",
    file,
  );
  if (isBundleWithDsseEnvelope(bundle)) return bundle;
  throw new IsologitError("BUNDLE_INVALID", "the bundle signs bytes, expected a statement in an envelope", {
    file,
  });
}

async function checkKey(bundle: BundleWithDsseEnvelope, key: KeyObject, file: string): Promise<Signatory> {
  const { content } = bundle.verificationMaterial;
  if (content.$case !== "publicKey") {
    throw new IsologitError(
      "USAGE",
      "the bundle was signed with a certificate, and a key was given",
      { file },
      {
        next: "give `trustedRoot`, `sigstoreIdentity` and `sigstoreIssuer` instead of `publicKey`",
      },
    );
  }
  const { hint } = content.publicKey;
  const own = hintOf(key);
  // bundles of model_signing before 1.1 have no hint
  if (hint !== "" && hint !== own) {
    throw new IsologitError(
      "BUNDLE_UNTRUSTED",
      `the bundle was signed with the key ${hint}, and the given key is ${own}`,
      {
        file,
      },
    );
  }
  const { dsse } = await import("@sigstore/core");
  const { payload, payloadType, signatures } = bundle.content.dsseEnvelope;
  const signature = signatures[0]!.sig; // the parser refuses every other number of signatures
  if (verify(hashFor(key), dsse.preAuthEncoding(payloadType, payload), key, signature)) {
    return { signedBy: own, issuer: null };
  }
  throw new IsologitError("BUNDLE_INVALID", "the signature does not match the payload and this key", {
    file,
  });
}

async function checkAuthority(
  bundle: BundleWithDsseEnvelope,
  { material, identity, issuer }: Extract<Trust, { kind: "authority" }>,
  file: string,
): Promise<Signatory> {
  const { content } = bundle.verificationMaterial;
  if (content.$case === "publicKey") {
    throw new IsologitError(
      "USAGE",
      "the bundle was signed with a key, and a trusted root was given",
      { file },
      {
        next: "give the key with `publicKey`",
      },
    );
  }
  const { toSignedEntity, Verifier } = await import("@sigstore/verify");
  let signer: Signer;
  try {
    // the library requires at least one certificate timestamp, one log entry and one trusted time
    signer = new Verifier(material).verify(toSignedEntity(bundle));
  } catch (cause) {
    const untrusted = (cause as { code?: unknown }).code === "CERTIFICATE_ERROR";
    throw new IsologitError(
      untrusted ? "BUNDLE_UNTRUSTED" : "BUNDLE_INVALID",
      `verification against the trusted root failed: ${(cause as Error).message}`,
      { file },
      { cause },
    );
  }
  const { subjectAlternativeName: found, extensions } = signer.identity ?? {};
  // compared here, because the library reads the identity as a pattern in which a dot is any character
  if (found !== identity || extensions?.issuer !== issuer) {
    const who = `${found ?? "no identity"} (${extensions?.issuer ?? "no issuer"})`;
    throw new IsologitError("BUNDLE_UNTRUSTED", `${who} signed the bundle, not ${identity} (${issuer})`, {
      file,
    });
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

/** Name of a key in model signing: the SHA-256 of its PEM text. */
const hintOf = (publicKey: KeyObject): string =>
  createHash("sha256")
    .update(publicKey.export({ format: "pem", type: "spki" }))
    .digest("hex");
