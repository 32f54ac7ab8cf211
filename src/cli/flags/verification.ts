/** Flags about checks: how much is compared, under which limits, and who must have signed. */
import { flagGroup, oneOf, someOf } from "../flag.ts";
import { decimalReader, readText } from "../values.ts";

const SIGSTORE_INSTANCE = "the public instance of Sigstore";

const VERIFICATION = "Verification options:";
const SIGNATURE = "Signature options:";

export const CHECK_FLAGS = flagGroup(VERIFICATION, {
  verify: {
    spec: "--verify <level>",
    about: "how much is compared",
    default: "logits",
    ...oneOf(["logits", "bytes", "off"]),
  },
  strict: {
    spec: "--strict",
    about: "treat findings that name a difference, and warnings of `check`, as errors",
  },
  weights: {
    spec: "--weights",
    about: "compare only the weights, and no settings and side files",
  },
  read: {
    spec: "--read",
    about: "read every byte and compare it with the digests that the format stores",
  },
  for: {
    spec: "--for <engines>",
    about:
      "engines that will run the checkpoint, with commas: what they cannot load, or load wrongly, is an error",
    default: "all, as notes and warnings",
    ...someOf(["vllm", "sglang", "trtllm", "transformers"]),
  },
  keepGoing: {
    spec: "--keep-going",
    about: "report all findings; do not stop at the first damaged file",
  },
  kernels: {
    spec: "--kernels",
    about: "run all test cases of every kernel against its float64 reference",
  },
});

export const LIMIT_FLAGS = flagGroup(VERIFICATION, {
  reference: {
    spec: "--reference <file>",
    about: "logits that other software recorded; the source must match them",
    read: readText,
  },
  tolerance: {
    spec: "--tolerance <file>",
    about: "YAML file with quality limits of a recast: kl, klP99, top1",
    read: readText,
  },
  kl: {
    spec: "--kl <nats>",
    about: "largest mean KL divergence that a recast may have",
    default: "a limit for each dtype",
    read: decimalReader(0, Number.POSITIVE_INFINITY, "nats"),
  },
  top1: {
    spec: "--top1 <fraction>",
    about: "smallest share of positions at which a recast must keep the most probable token",
    default: "a limit for each dtype",
    read: decimalReader(0, 1, "a fraction"),
  },
});

export const CERTIFICATE_FLAGS = flagGroup(VERIFICATION, {
  certificate: {
    spec: "--certificate <file>",
    about: "certificate to check A against",
    default: "the certificate in A or beside A",
    read: readText,
  },
});

/** Of commands that sign what they write. */
export const SIGNING_FLAGS = flagGroup(SIGNATURE, {
  sign: {
    spec: "--sign <file|sigstore>",
    about:
      "PEM file of a private key: Ed25519 signs the certificate, P-256 to P-521 sign a bundle; `sigstore` signs a bundle without a key",
    read: readText,
  },
  bundle: {
    spec: "--bundle <file>",
    about: "Sigstore bundle that signs every file: written by `convert --sign`, checked by `verify A`",
    read: readText,
  },
  identityToken: {
    spec: "--identity-token <token|file>",
    about: "OIDC token of the signer, for `--sign sigstore`",
    default: "SIGSTORE_ID_TOKEN, or the identity of the GitHub job",
    read: readText,
  },
  fulcioUrl: {
    spec: "--fulcio-url <url>",
    about: "certificate authority, for `--sign sigstore`",
    default: SIGSTORE_INSTANCE,
    read: readText,
  },
  rekorUrl: {
    spec: "--rekor-url <url>",
    about: "transparency log, for `--sign sigstore`",
    default: SIGSTORE_INSTANCE,
    read: readText,
  },
  tsaUrl: {
    spec: "--tsa-url <url>",
    about: "additional timestamp authority, for `--sign sigstore`",
    default: "none",
    read: readText,
  },
});

/** Of commands that check a signature. */
export const TRUST_FLAGS = flagGroup(SIGNATURE, {
  publicKey: {
    spec: "--public-key <file>",
    about: "PEM file of the public key that must have signed the certificate or the bundle",
    read: readText,
  },
  trustedRoot: {
    spec: "--trusted-root <file>",
    about: "trusted_root.json with the authorities and logs to trust, for a bundle signed without a key",
    read: readText,
  },
  sigstoreIdentity: {
    spec: "--sigstore-identity <name>",
    about: "identity that must have signed a bundle without a key",
    read: readText,
  },
  sigstoreIssuer: {
    spec: "--sigstore-issuer <url>",
    about: "issuer that must have confirmed this identity",
    read: readText,
  },
});
