/** Options of the library's functions. They carry the names of the command line's flags. */
import type { Format } from "../../formats/format.ts";
import type { Event } from "../core/events.ts";
import type { Family } from "../families/family.ts";

export type RecastKind = "keep" | "f32" | "f16" | "bf16" | "fp8-e4m3" | "fp8-e5m2";
export type VerifyLevel = "logits" | "bytes" | "off";
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

/** How findings are judged. */
export interface StrictOptions {
  /** a finding that names a difference makes the verdict `different`; of `check`: a warning is an error */
  readonly strict?: boolean;
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
  /** files beside the model that are no part of it, such as optimizer states, travel with it */
  readonly keepExtra?: boolean;
  /** BF16 or F32 values that F16 cannot hold become infinities instead of an error */
  readonly allowOverflow?: boolean;
}

export interface ConvertOptions
  extends PlanOptions,
    PromptOptions,
    LimitOptions,
    ReferenceOptions,
    StrictOptions {
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
    ReferenceOptions,
    StrictOptions {
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

export interface FindingsOptions extends RunOptions, SourceOptions {
  /** look at everything, instead of stopping at the first damaged file */
  readonly keepGoing?: boolean;
}

export interface CheckOptions extends FindingsOptions, StrictOptions {
  /** read every byte, and hold it to whatever digests the format keeps */
  readonly read?: boolean;
}

export type DiffOptions = Omit<FindingsOptions, "backend">;
