/** `verify`: two checkpoints, or one checkpoint and its certificate. */
import { CERTIFIED, type VerifyOptions } from "../certificate/options.ts";
import { findContradictions, ownCertificate } from "../certificate/own-certificate.ts";
import { recheckCertificate } from "../certificate/recheck.ts";
import { loadModelWithScales } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { IsologitError } from "../core/errors.ts";
import type { CompareOptions } from "../verify/options.ts";
import type { VerifyReport } from "../verify/report.ts";
import { verifyModels } from "../verify/verify.ts";

/**
 * Compares two checkpoints by address.
 *
 * @param a the source: an address as `convert` takes it
 * @param b the checkpoint that must be the same model; without one, `a` is compared with its certificate
 * @returns the verdict, with what each rung measured; a bad verdict is returned, never thrown
 * @throws codes of exit status 2, 3 and 4
 * @example
 * const { verdict } = await verify("model", "model.isologit");
 */
export function verify(a: string, b: string | undefined, options?: CompareOptions): Promise<VerifyReport>;
/**
 * Compares a checkpoint with its certificate, with a bundle that signs its files, or with recorded logits.
 *
 * @throws also CERTIFICATE_MISSING, CERTIFICATE_INVALID, BUNDLE_INVALID, BUNDLE_UNTRUSTED
 */
export function verify(a: string, b?: undefined, options?: VerifyOptions): Promise<VerifyReport>;
export async function verify(
  a: string,
  b: string | undefined,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  if (b === undefined) return recheckCertificate(a, options);
  refuseCertified(options);
  const [first, second] = [
    await openCheckpoint(a, options.formats, { ...options, keep: true }),
    await openCheckpoint(b, options.formats, { ...options, keep: true }),
  ];
  const certificates = { a: await ownCertificate(a, first), b: await ownCertificate(b, second) };
  const models = [
    await loadModelWithScales(first, options),
    await loadModelWithScales(second, options),
  ] as const;
  const { report } = await verifyModels(...models, {
    ...options,
    inspectContent: (content) => findContradictions(certificates, content, options.signal),
  });
  // A verdict is of files as they were at one time: files that the first rung read are unchanged.
  for (const { store } of [first, second]) await store.refuseChanged?.();
  return report;
}

/** @throws USAGE: an option of `verify A` was given together with a B */
function refuseCertified(options: VerifyOptions): void {
  const given = CERTIFIED.find((name) => options[name] !== undefined);
  if (given === undefined) return;
  throw new IsologitError("USAGE", `\`${given}\` is for verify A alone, and B was given`);
}
