/**
 * The limits under which a certificate was issued. A certificate has the limits and the measured values. A limit that is
 * wider than the default was an option of the conversion.
 */

import { type DType, isNumeric } from "../core/dtype.ts";
import type { Finding } from "../core/finding.ts";
import { remark } from "../core/finding.ts";
import type { LimitOptions } from "../verify/limits.ts";
import { givenLimits, type Limits, limitExcesses, limitsFor, type Quality } from "../verify/limits.ts";
import type { Verdict } from "../verify/report.ts";
import type { Certificate } from "./certificate.ts";

/** Values that the logits rung measured when the certificate was issued; null if no forward pass ran or a value is missing. */
export function certifiedQuality({ rungs }: Pick<Certificate, "rungs">): Quality | null {
  const metrics = rungs.find(({ rung }) => rung === "logits")?.metrics;
  if (metrics === undefined) return null;
  const { klMean, klP99, top1 } = metrics;
  const numbers = [klMean, klP99, top1].every((value) => typeof value === "number");
  return numbers ? { klMean: Number(klMean), klP99: Number(klP99), top1: Number(top1) } : null;
}

/** Limits that are wider than the default limits of this version for the same recast. */
export function widerLimits({ limits, recast }: Pick<Certificate, "limits" | "recast">): readonly Finding[] {
  if (limits.klMean === undefined) return [];
  const written = Object.keys(recast).map((change) => change.split(" to ")[1] as DType);
  const usual = limitsFor(new Set(written.filter(isNumeric)), {});
  const wider = (["klMean", "klP99", "top1"] as const).filter((name) => {
    const [found, own] = [limits[name], usual[name]];
    return found !== undefined && (name === "top1" ? found < own : found > own);
  });
  if (wider.length === 0) return [];
  const list = wider.map((name) => `${name} ${limits[name]} (usual ${usual[name]})`).join(", ");
  return [remark("limit-wider", `it was certified under limits that are wider than usual: ${list}`)];
}

interface LimitJudgement {
  readonly verdict: Verdict;
  readonly findings: readonly Finding[];
}

/** Judges limits of the user by the values in the certificate, because the source is not available. */
export function judgeCertifiedLimits(certificate: Certificate, options: LimitOptions): LimitJudgement {
  const given: Partial<Limits> = givenLimits(options);
  if (Object.keys(given).length === 0) return { verdict: "same", findings: [] };
  const quality = certifiedQuality(certificate);
  if (quality === null) {
    const message = `the certificate holds no measure of quality: the limits that were given (${Object.keys(given).join(", ")}) were not judged`;
    return { verdict: "unproven", findings: [remark("limit-unjudged", message)] };
  }
  const beyond = limitExcesses(quality, given).map((text) =>
    remark("limit-exceeded", `when it was certified, ${text}`),
  );
  return { verdict: beyond.length > 0 ? "different" : "same", findings: beyond };
}
