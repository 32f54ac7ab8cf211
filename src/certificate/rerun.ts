/** Runs the prompt of a certificate again, on any backend, and compares the logits with the fingerprint. */

import type { ModelWithScales } from "../checkpoint/load.ts";
import type { Finding } from "../core/finding.ts";
import { remark } from "../core/finding.ts";
import {
  compareFingerprints,
  FINGERPRINT_BOUND,
  type FingerprintDistance,
  FingerprintRecorder,
} from "../inference/fingerprint.ts";
import { runForwardPass } from "../inference/forward-pass.ts";
import { backendFor } from "../inference/machine.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import { RoutingComparison } from "../inference/router.ts";
import type { RerunMetrics, RungReport, Verdict } from "../verify/report.ts";
import type { Certificate } from "./certificate.ts";
import type { VerifyOptions } from "./options.ts";

interface RerunResult {
  /** null if no forward pass ran */
  readonly rung: RungReport | null;
  readonly findings: readonly Finding[];
  readonly backend: string | null;
  readonly device: string | null;
}

/** @throws CERTIFICATE_INVALID, and the errors of a forward pass */
export async function compareRerun(
  side: ModelWithScales,
  { fingerprint, prompt }: Certificate,
  options: VerifyOptions,
): Promise<RerunResult> {
  const none = (...unchecked: string[]) => {
    const findings = unchecked.map((message) => remark("behaviour-unchecked", message));
    return { rung: null, findings, backend: null, device: null };
  };
  if (options.verify === "bytes") return none();
  if (fingerprint === null || prompt === null)
    return none("the certificate has no fingerprint of logits: behaviour was not checked");
  refuseUnrunnable(side);
  const { ids } = prompt;
  const outside = ids.find((id) => id >= side.dims.vocab);
  if (outside !== undefined)
    return none(`the certificate's prompt has the id ${outside}, which this vocabulary lacks`);
  await using backend = await backendFor(options);
  const words = fingerprint.positions.map(({ top }) => top.map(([word]) => word));
  const recorder = new FingerprintRecorder(ids.length, words);
  const following = fingerprint.experts === undefined ? null : new RoutingComparison(fingerprint.experts);
  let routed = false;
  await runForwardPass(side, ids, backend, options, {
    residual: (name, values) => {
      if (name !== "norm_f") recorder.residual(values);
    },
    ...(following !== null && { follow: (router) => following.follow(router) }),
    experts: () => {
      routed = true;
    },
    logits: ({ lo, width, values }) => recorder.logits(lo, width, values),
  });
  const distance = compareFingerprints(fingerprint, recorder.finish(backend.id), recorder);
  // WASM kernels give the same bits on every machine: a difference is not rounding
  const sameBits = fingerprint.backend === "wasm" && backend.id === "wasm";
  const verdict = verdictOf(distance, following, sameBits);
  const unknown = verdict === "different" && routed && following === null;
  const firstLayers = [distance.firstLayer, following?.firstBeyond ?? null].filter((layer) => layer !== null);
  const metrics: RerunMetrics = {
    tokens: ids.length,
    relL2: distance.logitsRelL2,
    normsRel: distance.normsRel,
    firstLayer: firstLayers.length === 0 ? null : Math.min(...firstLayers),
    ...(following !== null && { routing: { flips: following.flips, beyond: following.beyond } }),
  };
  return {
    rung: { rung: "logits", verdict: unknown ? "unproven" : verdict, metrics },
    findings: unknown
      ? [
          remark(
            "experts-unknown",
            "the certificate does not list the chosen experts: a different choice may explain different logits",
          ),
        ]
      : [],
    backend: backend.id,
    device: backend.device,
  };
}

function verdictOf(
  { exact, logitsRelL2, normsRel }: FingerprintDistance,
  following: RoutingComparison | null,
  sameBits: boolean,
): Verdict {
  const { flips, beyond } = following ?? { flips: 0, beyond: 0 };
  if (exact && flips === 0 && beyond === 0) return "same";
  const near = logitsRelL2 <= FINGERPRINT_BOUND && normsRel <= FINGERPRINT_BOUND && beyond === 0;
  return near && !sameBits ? "within" : "different";
}
