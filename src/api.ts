/**
 * Options and reports of the library's functions. Options carry the names of the command line's flags; reports
 * are the objects that `--json` prints, field for field as the contract names them.
 */
import type { Format } from "../formats/define.ts";
import type { Event } from "./core/events.ts";
import type { Family } from "./families/define.ts";
import type { CertificateReport } from "./verify/certificate.ts";
import type { Control } from "./verify/controls.ts";
import type { LogitsSummary } from "./verify/metrics.ts";

export type RecastKind = "keep" | "f32" | "f16" | "bf16" | "fp8-e4m3" | "fp8-e5m2";
export type VerifyLevel = "logits" | "bytes" | "off";
export type Verdict = "same" | "within" | "different" | "unproven";

/** What every long function takes. */
export interface RunOptions {
  readonly formats?: readonly Format[];
  readonly families?: readonly Family[];
  /** ceiling for buffers, bytes; default 1 GiB */
  readonly memoryBytes?: number;
  /** default: one a core */
  readonly threads?: number;
  /** default "auto": a hardware GPU where there is one, else WASM */
  readonly backend?: "auto" | "webgpu" | "wasm";
  /** part of the name of the GPU to use, in any case */
  readonly device?: string;
  readonly watch?: (event: Event) => void;
  readonly signal?: AbortSignal;
}

/** What the one who asks knows of a checkpoint, or wants of it. */
export interface SourceOptions {
  /** true size of the vocabulary, where the checkpoint knows only padded rows */
  readonly vocabSize?: number;
  /** address of another checkpoint of such a model: config and side files for what this one does not say */
  readonly like?: string;
  /** of a folder with several: which iteration; default the latest */
  readonly iteration?: number;
}

/** What a forward pass reads; by default 64 seeded ids and, where there is a tokenizer, bundled text before them. */
export interface PromptOptions {
  /** nothing else is read then */
  readonly ids?: readonly number[];
  /** read through the checkpoint's tokenizer, in place of the bundled text */
  readonly prompt?: string;
  /** how many seeded ids; given alone, there is no text */
  readonly tokens?: number;
  /** default 0 */
  readonly seed?: number;
}

/** Logits recorded by other software, which the source must meet. */
export interface ReferenceOptions {
  /** a safetensors file; see docs/recording-references.md */
  readonly reference?: string;
}

/** Quality limits of a recast; they never widen tensor invariants or the wiring bound. */
export interface LimitOptions {
  /** a YAML file of these */
  readonly tolerance?: string;
  /** mean KL divergence, nats */
  readonly kl?: number;
  /** its 99th percentile over positions; ten times `kl` where only that is given */
  readonly klP99?: number;
  /** fraction of positions, 0 to 1 */
  readonly top1?: number;
}

export interface PlanOptions extends RunOptions, SourceOptions {
  readonly to?: string;
  readonly dtype?: RecastKind;
  /** a recipe's name, or the path of a recipe file */
  readonly recipe?: string;
  readonly keepEnds?: number;
  readonly maxShardBytes?: number;
  /** packed: tensors start at multiples of this many bytes; 256 (default) or 4096 */
  readonly alignment?: number;
  /** ranks that the tensors are cut for; for distributed checkpoints `tp` only sets the padding; default 1 */
  readonly tp?: number;
  readonly pp?: number;
  /** BF16 or F32 values that F16 cannot hold become infinities instead of an error */
  readonly allowOverflow?: boolean;
}

export interface ConvertOptions extends PlanOptions, PromptOptions, LimitOptions, ReferenceOptions {
  readonly verify?: VerifyLevel;
  /**
   * PEM file of a private key: Ed25519 to sign the certificate with, with `bundle` on P-256, P-384 or P-521; or "sigstore",
   * to sign the bundle without a key
   */
  readonly sign?: string;
  /** file to write a Sigstore bundle to that signs every file of the destination, as model signing does */
  readonly bundle?: string;
  /** to sign without a key: an OIDC identity token, or a file that holds it; default: what the CI gives */
  readonly identityToken?: string;
  /** for the same: the authority and the log to ask, both or neither; default: Sigstore's public instance */
  readonly fulcioUrl?: string;
  readonly rekorUrl?: string;
  /** for the same: a timestamp authority, asked besides */
  readonly tsaUrl?: string;
  readonly resume?: boolean;
  readonly overwrite?: boolean;
  /** a file that `plan --json` wrote: the conversion must be that one */
  readonly planFile?: string;
  /** written bytes after which they are synced and a killed run can be resumed from there; default 256 MiB */
  readonly checkpointBytes?: number;
}

/** Of `verify A B`. */
export interface CompareOptions
  extends RunOptions,
    SourceOptions,
    PromptOptions,
    LimitOptions,
    ReferenceOptions {
  readonly verify?: Exclude<VerifyLevel, "off">;
}

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

/** What a report says of a bundle that was made, or whose signature was found good. */
export interface BundleReport {
  /** SHA-256 of the public key's PEM text, or the identity in the signing certificate */
  readonly signedBy: string;
  /** who vouched for the identity; null for a key */
  readonly issuer: string | null;
  /** how many files were signed */
  readonly files: number;
}

export interface LogitsOptions extends RunOptions, SourceOptions, PromptOptions {
  /** path of the safetensors file to write */
  readonly out: string;
  readonly hidden?: boolean;
  readonly overwrite?: boolean;
}

export interface GenerateOptions extends RunOptions, SourceOptions {
  /** what the model reads; this or `prompt` */
  readonly ids?: readonly number[];
  readonly prompt?: string;
  /** `prompt` is what a user says in a chat, put as the checkpoint's template has it */
  readonly chat?: boolean;
  /** new tokens at most; default 64 */
  readonly tokens?: number;
  /** go on after the token that ends a text */
  readonly ignoreEos?: boolean;
  /** logits are divided by it; 0 (default) takes the best token always */
  readonly temperature?: number;
  /** draw from so many of the best tokens */
  readonly topK?: number;
  /** draw from the best tokens that together have this probability */
  readonly topP?: number;
  /** of what is drawn; default 0 */
  readonly seed?: number;
  /** called with each new piece of text, always of whole characters; with ids where there is no tokenizer */
  readonly onText?: (piece: string) => unknown;
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

/** Entries of a training checkpoint that are no part of the model, and do not travel. */
export interface DroppedEntries {
  readonly why: string;
  readonly entries: number;
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

export interface RungReport {
  readonly rung: "cover" | "bytes" | "logits" | "reference";
  readonly verdict: Verdict;
  readonly metrics: Readonly<Record<string, unknown>>;
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
  readonly routing: { readonly flips: number };
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
  readonly findings: readonly string[];
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
}

/** `ok`: no finding is an error or a danger. */
export interface FindingsReport {
  readonly ok: boolean;
  readonly findings: readonly Finding[];
}

export interface FindingsOptions extends RunOptions, SourceOptions {
  /** look at everything, instead of stopping at the first damaged file */
  readonly keepGoing?: boolean;
}

export type DiffOptions = Omit<FindingsOptions, "backend">;

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
