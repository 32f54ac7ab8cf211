/** `verify`: compares two checkpoints, or one checkpoint with its certificate. */

import { CERTIFIED, type VerifyOptions } from "../certificate/options.ts";
import { findContradictions, ownCertificate } from "../certificate/own-certificate.ts";
import { recheckCertificate } from "../certificate/recheck.ts";
import { loadModelWithScales } from "../checkpoint/load.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { IsologitError } from "../core/errors.ts";
import { pluginsReport } from "../plugins/plugin.ts";
import type { CompareOptions } from "../verify/options.ts";
import type { VerifyReport } from "../verify/report.ts";
import { verifyModels } from "../verify/verify.ts";

/**
 * Compares two checkpoints.
 *
 * @param a path or `hf://` address of the source
 * @param b path or `hf://` address of the checkpoint that must be the same model
 * @param options limits, prompt and limits of the machine
 * @returns the verdict and the metrics of each rung; a bad verdict is a result, not an error
 * @throws codes of exit status 2, 3 and 4
 * @example
 * const { verdict } = await verify("model", "model.isologit");
 */
export function verify(a: string, b: string | undefined, options?: CompareOptions): Promise<VerifyReport>;
/**
 * Compares a checkpoint with its certificate, with a bundle that signs its files, or with recorded logits.
 *
 * @param a path or `hf://` address of the checkpoint
 * @param b absent
 * @param options the certificate, the bundle, and whom to trust
 * @returns the verdict and the metrics of each rung
 * @throws as above, and CERTIFICATE_MISSING, CERTIFICATE_INVALID, BUNDLE_INVALID, BUNDLE_UNTRUSTED
 * @example
 * const { verdict } = await verify("model.isologit", undefined, { publicKey: "signer.pub.pem" });
 */
export function verify(a: string, b?: undefined, options?: VerifyOptions): Promise<VerifyReport>;
export async function verify(
  a: string,
  b: string | undefined,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  if (b === undefined) return { ...(await recheckCertificate(a, options)), ...pluginsReport(options) };
  refuseCertified(options);
  const [first, second] = [
    await openCheckpoint(a, { ...options, keep: true }),
    await openCheckpoint(b, { ...options, keep: true }),
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
  // The verdict is about the files at one time: refuse files that changed since the first rung read them.
  for (const { store } of [first, second]) await store.refuseChanged?.();
  return { ...report, ...pluginsReport(options) };
}

/** @throws USAGE: an option of `verify A` is given together with a B */
function refuseCertified(options: VerifyOptions): void {
  const given = CERTIFIED.find((name) => options[name] !== undefined);
  if (given === undefined) return;
  throw new IsologitError("USAGE", `\`${given}\` is for verify A alone, and B was given`);
}
