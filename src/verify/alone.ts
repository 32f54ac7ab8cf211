/** Options of `verify A` alone, against what was left with A or signed of it. Beside a B they would mean nothing. */
import type { CertifiedOptions, VerifyOptions } from "../api/options.ts";
import { IsologitError } from "../core/errors.ts";

export const ALONE = [
  "certificate",
  "publicKey",
  "bundle",
  "trustedRoot",
  "sigstoreIdentity",
  "sigstoreIssuer",
] as const satisfies readonly (keyof CertifiedOptions)[];

/** @throws USAGE, naming the flag as the command line spells it */
export function refuseAlone(options: VerifyOptions): void {
  const asked = ALONE.find((name) => options[name] !== undefined);
  if (asked === undefined) return;
  const flag = `--${asked.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  throw new IsologitError("USAGE", `${flag} is for verify A alone, and B was given`);
}
