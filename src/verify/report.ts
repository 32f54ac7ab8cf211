/** What a verification reports: one entry for each rung, with the metrics of that rung. */

import type { ModelWithScales } from "../checkpoint/load.ts";
import type { Leaf } from "../core/content-root.ts";
import type { Finding } from "../core/finding.ts";
import type { Fingerprint } from "../inference/fingerprint.ts";
import type { Prompt } from "../inference/prompts.ts";
import type { BundleReport } from "../signing/signed-files.ts";
import type { Control } from "./controls/controls.ts";
import type { Quality } from "./limits.ts";
import type { LogitsSummary } from "./metrics.ts";
import type { Verdict } from "./verdict.ts";

/** What a report says of a certificate. */
export interface CertificateReport {
  readonly sha256: string;
  readonly tool: string;
  readonly reference: boolean;
  /** as it was issued, with the limits that held then and what was measured; null: no forward pass ran */
  readonly verdict: "same" | "within";
  readonly limits: Readonly<Record<string, number>>;
  readonly quality: Quality | null;
  /** SHA-256 of the public key that signed it; null where nobody did */
  readonly signedBy: string | null;
}

/** All that a verification found out. */
export interface Proof {
  readonly report: VerifyReport;
  readonly source: ModelWithScales;
  readonly destination: ModelWithScales;
  /** the destination's; null where elements could not be compared */
  readonly leaves: readonly Leaf[] | null;
  readonly prompt: Prompt | null;
  readonly fingerprint: Fingerprint | null;
}

/** The result of one comparison. The first of two types is of two checkpoints, the second of a checkpoint and its certificate. */
export type RungReport =
  | Rung<"cover", CoverMetrics | CertifiedCoverMetrics>
  | Rung<"bytes", BytesMetrics | CertifiedBytesMetrics>
  | Rung<"logits", LogitsMetrics | RerunMetrics>
  | Rung<"reference", ReferenceMetrics>;

interface Rung<R extends string, M> {
  readonly rung: R;
  readonly verdict: Verdict;
  readonly metrics: M;
}

export interface CoverMetrics {
  readonly roles: number;
  readonly elements: number;
  /** tensors that B stores */
  readonly tensors: number;
  /** one sentence for each setting that differs */
  readonly settings: readonly string[];
}

export interface CertifiedCoverMetrics {
  /** files that were certified or signed */
  readonly files: number;
  /** one sentence for each file that differs */
  readonly differences: readonly string[];
}

export interface BytesMetrics {
  readonly roles: number;
  /** roles that B stores in another dtype */
  readonly recast: number;
  readonly bytes: number;
  /** roles that differ; `differences` lists the first 20 */
  readonly different: number;
  readonly differences: readonly TensorDifference[];
}

export interface TensorDifference {
  readonly role: string;
  /** stored tensors of A and B */
  readonly tensors: readonly string[];
  readonly message: string;
}

export interface CertifiedBytesMetrics {
  readonly roles: number;
  readonly different: number;
  /** the first 20 roles whose digests differ */
  readonly differences: readonly string[];
}

/** One forward pass, compared with the fingerprint in the certificate. */
export interface RerunMetrics {
  readonly tokens: number;
  readonly relL2: number;
  /** largest relative difference of a layer's norm */
  readonly normsRel: number;
  /** first layer that differs */
  readonly firstLayer: number | null;
  readonly routing?: RoutingMetrics;
}

/** The largest differences over all recorded prompts; the smallest `top1`. */
export interface ReferenceMetrics {
  readonly prompts: number;
  readonly tokens: number;
  readonly arithmetic: "float32" | "bfloat16";
  readonly maxAbs: number;
  readonly relL2: number;
  readonly klMean: number;
  readonly top1: number;
  readonly nllA?: number;
}

export interface RoutingMetrics {
  /** expert choices that a near tie explains */
  readonly flips: number;
  /** expert choices that no near tie explains */
  readonly beyond?: number;
}

export interface LayerDrift {
  readonly layer: number;
  readonly kind: string;
  readonly driftRelL2: number;
  /** the worst door, recast noise excluded */
  readonly localRelL2: number;
}

export interface LogitsMetrics extends LogitsSummary {
  readonly tokens: number;
  readonly layers: readonly LayerDrift[];
  readonly wiring: { readonly maxRelL2: number; readonly limit: number };
  readonly routing: RoutingMetrics;
  readonly unread: readonly string[];
  readonly controls: readonly Control[];
}

export interface VerifyReport {
  readonly verdict: Verdict;
  readonly backend: string | null;
  readonly device: string | null;
  readonly rungs: readonly RungReport[];
  readonly firstDivergence: {
    readonly layer: number;
    readonly kind: string;
    readonly door?: string;
    readonly tensors: readonly string[];
  } | null;
  readonly limits: Readonly<Record<string, number>>;
  readonly certificate: CertificateReport | null;
  /** set where a bundle was asked for */
  readonly bundle?: BundleReport;
  /** content roots of both sides; null where the bytes rung could not compute one */
  readonly roots: { readonly a: string | null; readonly b: string | null };
  /** the texts of `findingDetails`, in the same order */
  readonly findings: readonly string[];
  /**
   * What the rungs' numbers do not say. A `warning` is a difference: something of the model, its behaviour or its files is
   * not the same or is missing; under `strict` it is an `error`, and the verdict is `different`. A `note` is a remark. The
   * rule is stable; `at.file` is empty where it is about the checkpoint as a whole.
   */
  readonly findingDetails: readonly Finding[];
  /** what the bytes rung compared of two checkpoints, in order of execution */
  readonly tensors?: readonly ComparedTensor[];
}

/** A role as both sides store it. */
export interface ComparedTensor {
  readonly role: string;
  readonly layer: number | null;
  readonly a: string;
  readonly b: string;
  readonly dtypeA: string;
  readonly dtypeB: string;
  /** `rounded`: every element is the right rounding of A's */
  readonly outcome: "same" | "rounded" | "different";
}
