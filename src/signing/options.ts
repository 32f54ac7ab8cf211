/** Options that decide who signs a folder of files, and whose signature is trusted. */

/** Options for signing without a key. Sigstore's services issue a certificate for an identity. */
export interface KeylessOptions {
  /** an OIDC identity token, or the path of a file that holds the token; default: the token of the CI environment */
  readonly identityToken?: string;
  /** URL of the certificate authority; give `rekorUrl` too; default: Sigstore's public instance */
  readonly fulcioUrl?: string;
  /** URL of the signature log; give `fulcioUrl` too; default: Sigstore's public instance */
  readonly rekorUrl?: string;
  /** URL of a timestamp authority; default: no timestamp authority */
  readonly tsaUrl?: string;
}

export interface SignOptions extends KeylessOptions {
  /**
   * PEM file of a private key. The key is Ed25519 for a certificate, and P-256, P-384 or P-521 for a `bundle`. The value
   * "sigstore" signs the bundle without a key.
   */
  readonly sign?: string;
  /** path of the Sigstore bundle to write; the bundle signs every file of the destination */
  readonly bundle?: string;
}

/** Options that name the signer to trust. */
export interface TrustOptions {
  /** PEM file of the public key whose signature is required: of the bundle if there is one, else of the certificate */
  readonly publicKey?: string;
  /** path of a Sigstore bundle that must sign every file */
  readonly bundle?: string;
  /** for a bundle that was signed without a key: file with the certificate authorities and logs to trust */
  readonly trustedRoot?: string;
  /** for a bundle that was signed without a key: the required identity, spelled as in the signing certificate */
  readonly sigstoreIdentity?: string;
  /** for a bundle that was signed without a key: URL of the required issuer of that identity */
  readonly sigstoreIssuer?: string;
}
