/** The report of a verification: one entry for each rung, with the metrics of that rung. */

import type { ModelWithScales } from "../checkpoint/load.ts";
import type { Leaf } from "../core/content-root.ts";
import type { Finding } from "../core/finding.ts";
import type { Fingerprint } from "../inference/fingerprint.ts";
import type { Prompt } from "../inference/prompts.ts";
import type { PluginsReport } from "../plugins/plugin.ts";
import type { BundleReport } from "../signing/signed-files.ts";
import type { RecastError, TensorError } from "./bytes/recast-error.ts";
import type { Control } from "./controls/trials.ts";
import type { Quality } from "./limits.ts";
import type { LogitsSummary } from "./metrics.ts";

export type Verdict = "same" | "within" | "different" | "unproven";

/** The certificate in a report. */
export interface CertificateReport {
  readonly sha256: string;
  readonly tool: string;
  readonly reference: boolean;
  /** verdict when the certificate was issued */
  readonly verdict: "same" | "within";
  /** limits when the certificate was issued */
  readonly limits: Readonly<Record<string, number>>;
  /** quality measured when the certificate was issued; null: no forward pass ran */
  readonly quality: Quality | null;
  /** SHA-256 of the public key that signed the certificate; null where it is not signed */
  readonly signedBy: string | null;
}

/** The complete result of a verification: the report and everything that a certificate needs. */
export interface Proof {
  readonly report: VerifyReport;
  readonly source: ModelWithScales;
  readonly destination: ModelWithScales;
  /** leaves of the destination; null where elements could not be compared */
  readonly leaves: readonly Leaf[] | null;
  readonly prompt: Prompt | null;
  readonly fingerprint: Fingerprint | null;
}

/**
 * The result of one rung. Where there are two types of metrics, the first is for two checkpoints and the second for a
 * checkpoint and its certificate.
 */
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

interface CoverMetrics {
  readonly roles: number;
  readonly elements: number;
  /** tensors that B stores */
  readonly tensors: number;
  /** one sentence for each setting that differs */
  readonly settings: readonly string[];
  /** of a pruned model: how many elements of the source were left out, by role */
  readonly leftOut?: Readonly<Record<string, number>>;
  /** of a pruned model: how many elements were computed from those of the source, by role; absent: none */
  readonly derived?: Readonly<Record<string, number>>;
}

interface CertifiedCoverMetrics {
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
  /** the error of all recast roles together; absent where nothing was recast */
  readonly error?: RecastError;
}

export interface TensorDifference {
  readonly role: string;
  /** stored tensors of A and B */
  readonly tensors: readonly string[];
  readonly message: string;
}

interface CertifiedBytesMetrics {
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

interface RoutingMetrics {
  /** differing expert choices that a near tie explains */
  readonly flips: number;
  /** differing expert choices that no near tie explains */
  readonly beyond?: number;
}

export interface LayerDrift {
  readonly layer: number;
  readonly kind: string;
  readonly driftRelL2: number;
  /** the largest distance at a door, without the noise of the recast */
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

export interface VerifyReport extends PluginsReport {
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
  /** names in `limits` that decided nothing, because the source predicts no better than chance; absent: all were judged */
  readonly unjudged?: readonly string[];
  readonly certificate: CertificateReport | null;
  /** present where a signed bundle was requested */
  readonly bundle?: BundleReport;
  /** content roots of both sides; null where the bytes rung could not compute one */
  readonly roots: { readonly a: string | null; readonly b: string | null };
  /** the texts of `findingDetails`, in the same order */
  readonly findings: readonly string[];
  /**
   * Facts that the numbers of the rungs do not show. A `warning` is a difference: a part of the model, its behaviour or its
   * files is not the same or is missing; with `strict` it is an `error` and the verdict is `different`. A `note` is a
   * remark. The rule is stable; `at.file` is empty where the finding is about the whole checkpoint.
   */
  readonly findingDetails: readonly Finding[];
  /** roles, scales and copies that tasks compared, and that this process did not read again; absent: none */
  readonly comparedByTasks?: number;
  /** number of main layers that tasks ran; absent: none */
  readonly layersByTasks?: number;
  /** the roles that the bytes rung compared, in order of execution; only for two checkpoints */
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
  /** `rounded`: every element is the correct rounding of the element of A */
  readonly outcome: "same" | "rounded" | "different";
  /** how far B is from A; only where B stores the role in another dtype or with other scales */
  readonly error?: TensorError;
}
