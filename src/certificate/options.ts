/** Options of `verify A`: what a checkpoint is compared with where there is no second one. */
import type { TrustOptions } from "../signing/options.ts";
import type { CompareOptions } from "../verify/options.ts";

/** Options that only `verify A` takes. With a B they are refused. */
interface CertifiedOptions extends TrustOptions {
  /** path of the certificate; default: the certificate in the checkpoint or beside the checkpoint */
  readonly certificate?: string;
}

/** Names of those options. */
export const CERTIFIED = Object.keys({
  certificate: true,
  publicKey: true,
  bundle: true,
  trustedRoot: true,
  sigstoreIdentity: true,
  sigstoreIssuer: true,
} satisfies Record<keyof CertifiedOptions, true>) as (keyof CertifiedOptions)[]; // the type checks that each option is here

export interface VerifyOptions extends CompareOptions, CertifiedOptions {}
