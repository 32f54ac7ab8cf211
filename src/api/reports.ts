/** What the library's functions return: the objects that `--json` prints, field for field as the contract names them. */
import type { CertificateReport } from "../certificate/certificate.ts";
import type { Control } from "../verify/controls/controls.ts";
import type { LogitsSummary } from "../verify/metrics.ts";
import type { RecastKind } from "./options.ts";

export type Verdict = "same" | "within" | "different" | "unproven";

/** What a report says of a bundle that was made, or whose signature was found good. */
export interface BundleReport {
  /** SHA-256 of the public key's PEM text, or the identity in the signing certificate */
  readonly signedBy: string;
  /** who vouched for the identity; null for a key */
  readonly issuer: string | null;
  /** how many files were signed */
  readonly files: number;
}

export interface GenerateReport {
  readonly backend: string;
  readonly device: string;
  readonly promptIds: readonly number[];
  /** what followed; the token that ended the text among them */
  readonly ids: readonly number[];
  /** null where the checkpoint has no tokenizer */
  readonly text: string | null;
  readonly stopped: "eos" | "tokens";
  /** until the prompt was read, and from there to the end */
  readonly promptSeconds: number;
  readonly seconds: number;
  /** tokens of the prompt that were read at a time */
  readonly readAtOnce: number;
  /** what the model kept of earlier tokens at the end, bytes: for each token, and however many there are */
  readonly kept: { readonly perTokenBytes: number; readonly fixedBytes: number };
}

/** `plan`: what `convert` would do. */
export interface PlanReport {
  readonly id: string;
  readonly exact: boolean;
  readonly source: { readonly address: string; readonly format: string; readonly bytes: number };
  readonly destination: { readonly path: string; readonly format: string; readonly bytes: number };
  readonly files: readonly { readonly path: string; readonly size: number }[];
  readonly tensors: readonly PlannedTensor[];
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly peakBytes: number;
  readonly warnings: readonly string[];
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
}

/** What lies in or beside a checkpoint, is no part of the model, and does not travel. */
export interface DroppedEntries {
  readonly why: string;
  /** entries of a file, or whole files */
  readonly entries: number;
  /** size of the files, where they are whole ones */
  readonly bytes?: number;
}

/** Rows of the token table and of the head, each, that the model has no token for. */
export interface PaddingRows {
  readonly cut: number;
  readonly added: number;
}

export interface PlannedTensor {
  readonly name: string;
  readonly role: string;
  readonly layer: number | null;
  readonly from: string;
  readonly dtype: string;
  readonly sourceDtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
}

export interface ConvertReport {
  readonly plan: string;
  readonly exact: boolean;
  readonly source: { readonly address: string; readonly format: string; readonly root: string | null };
  readonly destination: {
    readonly path: string;
    readonly format: string;
    readonly root: string | null;
    readonly bytes: number;
  };
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly seconds: number;
  readonly peakRssBytes: number;
  readonly verification: VerifyReport | null;
  readonly dropped: readonly DroppedEntries[];
  readonly padding: PaddingRows;
  /** set when the verdict kept the destination from appearing: where the staged files are */
  readonly staged?: string;
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
  readonly routing?: Routing;
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

export interface Routing {
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
  readonly routing: Routing;
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

export interface LogitsReport {
  readonly backend: string;
  readonly device: string;
  readonly tokens: number;
  readonly vocab: number;
  readonly seconds: number;
  readonly out: string;
}

export interface InspectReport {
  readonly format: string;
  readonly dialect: string | null;
  readonly family: string | null;
  readonly pattern: string | null;
  readonly layers: {
    readonly mamba: number;
    readonly attention: number;
    readonly mlp: number;
    readonly moe: number;
    /** of other families */
    readonly [kind: string]: number;
  };
  readonly parameters: number;
  readonly bytes: number;
  readonly dtypes: Readonly<Record<string, { readonly tensors: number; readonly bytes: number }>>;
  readonly quantization: Readonly<Record<string, unknown>> | null;
  readonly sidecars: readonly string[];
  readonly tensors?: readonly InspectedTensor[];
}

export interface InspectedTensor {
  readonly name: string;
  readonly role: string | null;
  readonly layer: number | null;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly scale?: string;
}

export type Severity = "note" | "warning" | "error" | "danger";

/** Something wrong with a checkpoint. `rule` is stable: scripts may look for it. */
export interface Finding {
  readonly rule: string;
  readonly severity: Severity;
  readonly at: { readonly file: string; readonly tensor: string | null; readonly offset: number | null };
  readonly message: string;
  /** what to do about it, where that is known */
  readonly next?: string;
  /** every tensor that it is about, where they are several */
  readonly tensors?: readonly string[];
}

/** `ok`: no finding is an error or a danger. */
export interface FindingsReport {
  readonly ok: boolean;
  readonly findings: readonly Finding[];
}

/** Two checkpoints role by role, whatever their formats and dialects. */
export interface DiffReport {
  /** no tensor, setting or side file differs */
  readonly equal: boolean;
  readonly tensors: readonly DiffedTensor[];
  /** settings of the model that differ, and keys of the config where both sides have one dialect */
  readonly config: readonly { readonly key: string; readonly a: unknown; readonly b: unknown }[];
  readonly sidecars: readonly DiffedSidecar[];
}

export interface DiffedTensor {
  readonly role: string;
  readonly layer: number | null;
  /** stored tensor and dtype of either side; null where it has none */
  readonly a: string | null;
  readonly b: string | null;
  readonly equal: boolean;
  /** of the real values, scales applied; null where they cannot be compared */
  readonly maxAbs: number | null;
  readonly relL2: number | null;
  /** largest distance in codes of the dtype, where both sides have the same dtype and scale */
  readonly ulp: number | null;
  /** why it could not be compared to its end */
  readonly error?: string;
}

/** A file that differs; `lines` are those of a text between what both have in common at its start and its end. */
export interface DiffedSidecar {
  readonly path: string;
  /** SHA-256, null where a side lacks it */
  readonly a: string | null;
  readonly b: string | null;
  readonly lines?: { readonly from: number; readonly a: readonly string[]; readonly b: readonly string[] };
}

export interface DoctorReport {
  readonly node: string;
  readonly platform: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly diskFreeBytes: number;
  readonly backends: readonly {
    readonly id: string;
    readonly available: boolean;
    readonly device: string | null;
    readonly driver: string | null;
    readonly software: boolean;
    /** of WGSL, that its shaders use */
    readonly extensions: readonly string[];
    readonly reason: string | null;
  }[];
  readonly staging: readonly string[];
  readonly kernels?: readonly {
    readonly id: string;
    readonly backend: string;
    readonly device: string;
    readonly cases: number;
    readonly worstError: number;
    readonly bound: number;
    readonly ok: boolean;
    readonly speed: { readonly value: number; readonly unit: "GFLOP/s" | "GB/s" };
  }[];
}

export interface FormatsReport {
  readonly formats: readonly {
    readonly id: string;
    readonly title: string;
    readonly reads: boolean;
    readonly writes: boolean;
    readonly endings: readonly string[];
  }[];
  readonly dialects: readonly { readonly id: string; readonly family: string }[];
  readonly families: readonly { readonly id: string; readonly recipes: readonly string[] }[];
  readonly recasts: readonly { readonly id: RecastKind; readonly writtenBy: readonly string[] }[];
  readonly backends: readonly string[];
}
