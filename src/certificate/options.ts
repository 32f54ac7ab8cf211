/** Options of `verify A`: what a checkpoint is compared with where there is no second one. */
import type { CompareOptions } from "../verify/options.ts";

/** Of `verify A`, against a certificate or what was signed; with a B they are refused. */
export interface CertifiedOptions {
  /** against a certificate: the file it is in; default: in or beside the checkpoint */
  readonly certificate?: string;
  /** PEM file of the key that must have signed: the bundle where there is one, else the certificate */
  readonly publicKey?: string;
  /** a Sigstore bundle that must have signed every file */
  readonly bundle?: string;
  /** for a bundle that was signed without a key: file of the authorities and logs to believe */
  readonly trustedRoot?: string;
  /** for the same: who must have signed, as the signing certificate spells it */
  readonly sigstoreIdentity?: string;
  /** for the same: who must have vouched for that identity, a URL */
  readonly sigstoreIssuer?: string;
}

export const CERTIFIED = [
  "certificate",
  "publicKey",
  "bundle",
  "trustedRoot",
  "sigstoreIdentity",
  "sigstoreIssuer",
] as const satisfies readonly (keyof CertifiedOptions)[];

export interface VerifyOptions extends CompareOptions, CertifiedOptions {}
