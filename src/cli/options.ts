/** Every flag of this version, said once: how it is spelt, what it means, how its value is read. */
import { choice, decimal, ids, integer, type Reader, reports, size, text } from "./values.ts";

const GROUPS = {
  source: "What SRC does not say:",
  model: "What is written:",
  check: "Verification:",
  prompt: "What the forward passes read:",
  sample: "What is written next:",
  machine: "Machine:",
  files: "Existing files:",
  hub: "Hub:",
  talk: "Output:",
} as const;

interface Flag<T> {
  readonly spec: string;
  readonly about: string;
  readonly group: string;
  /** absent for a switch */
  readonly read?: Reader<T>;
  /** given several times, all values count; `read` then reads one of them */
  readonly several?: true;
}

const group =
  (heading: keyof typeof GROUPS) =>
  <T>(spec: string, about: string, read: Reader<T>): Flag<T> => ({
    spec,
    about,
    group: GROUPS[heading],
    read,
  });

const toggle = (heading: keyof typeof GROUPS, spec: string, about: string): Flag<boolean> => ({
  spec,
  about,
  group: GROUPS[heading],
});

/** A flag that may be given several times. */
const several = (heading: keyof typeof GROUPS, spec: string, about: string): Flag<readonly string[]> => ({
  spec,
  about,
  group: GROUPS[heading],
  several: true,
});

const source = group("source");
const model = group("model");
const check = group("check");
const prompt = group("prompt");
const sample = group("sample");
const machine = group("machine");
const hub = group("hub");
const talk = group("talk");

/** Keyed as commander names their values. */
export const FLAGS = {
  vocabSize: source(
    "--vocab-size <n>",
    "true size of the vocabulary, where only padded rows are stored",
    integer(1, 2 ** 31),
  ),
  like: source(
    "--like <dir>",
    "config, tokenizer and side files of another checkpoint of such a model",
    text,
  ),
  iteration: source(
    "--iteration <n>",
    "which iteration of a training run (default: the latest)",
    integer(0, Number.MAX_SAFE_INTEGER),
  ),
  tp: model("--tp <n>", "tensor parallel ranks that the weights are cut for (default: 1)", integer(1, 4096)),
  pp: model("--pp <n>", "megatron: pipeline stages (default: 1)", integer(1, 4096)),
  to: model("--to <format>", "format to write; may be left out where DST's ending says it", text),
  dtype: model(
    "--dtype <dtype>",
    "keep, f32, f16, bf16, fp8-e4m3 or fp8-e5m2 (default: keep)",
    choice(["keep", "f32", "f16", "bf16", "fp8-e4m3", "fp8-e5m2"]),
  ),
  recipe: model("--recipe <name|file>", "which roles are cast: nemotron-h, all-linear, or a YAML file", text),
  keepEnds: model(
    "--keep-ends <n>",
    "layers at each end left in BF16 (default: the recipe's)",
    integer(0, 1e6),
  ),
  quantDialect: model(
    "--quant-dialect <name>",
    "names and config of FP8 in HF folders (default: compressed-tensors)",
    choice(["compressed-tensors"], ["modelopt", "fp8"]),
  ),
  allowOverflow: toggle("model", "--allow-overflow", "store values that f16 cannot hold as infinities"),
  keepExtra: toggle(
    "model",
    "--keep-extra",
    "take along training state and other files that are no part of the model",
  ),
  maxShardSize: model("--max-shard-size <size>", "largest HF shard, as 5GB", size),
  align: model(
    "--align <bytes>",
    "packed: where tensors start, 256 or 4096 (default: 256)",
    choice(["256", "4096"]),
  ),
  plan: model("--plan <file>", "run the plan that `isologit plan --json` wrote, and no other", text),
  out: model("--out <file>", "safetensors file to write (default: logits.safetensors)", text),
  hidden: toggle(
    "model",
    "--hidden",
    "also write the hidden state after every layer, and the experts chosen",
  ),
  tensors: toggle("model", "--tensors", "list every tensor"),
  keepGoing: toggle("check", "--keep-going", "report everything, past the first damaged file"),
  read: toggle("check", "--read", "read every byte, and compare it with the format's own digests"),
  kernels: toggle("check", "--kernels", "run every kernel's cases against the float64 oracle"),
  verify: check(
    "--verify <level>",
    "logits, bytes or off (default: logits)",
    choice(["logits", "bytes", "off"]),
  ),
  strict: toggle(
    "check",
    "--strict",
    "findings that name a difference are errors, and so are warnings of check",
  ),
  kl: check(
    "--kl <nats>",
    "largest mean KL divergence of a recast",
    decimal(0, Number.POSITIVE_INFINITY, "nats"),
  ),
  top1: check(
    "--top1 <fraction>",
    "least share of positions that keep their best token",
    decimal(0, 1, "a fraction"),
  ),
  reference: check(
    "--reference <file>",
    "logits recorded by other software, which the source must meet",
    text,
  ),
  tolerance: check("--tolerance <file>", "YAML file of quality limits of a recast: kl, klP99, top1", text),
  certificate: check(
    "--certificate <file>",
    "verify A: a certificate from elsewhere (default: the one in or beside A)",
    text,
  ),
  publicKey: check(
    "--public-key <file>",
    "PEM file of the key that must have signed the certificate, or the bundle",
    text,
  ),
  sign: check(
    "--sign <file|sigstore>",
    "PEM file of a private key: Ed25519 for the certificate, P-256 to P-521 for a bundle; sigstore: a bundle, without a key",
    text,
  ),
  bundle: check(
    "--bundle <file>",
    "Sigstore bundle over every file: written with --sign, met by verify A",
    text,
  ),
  identityToken: check(
    "--identity-token <token|file>",
    "--sign sigstore: who signs (default: SIGSTORE_ID_TOKEN, or the GitHub job's own identity)",
    text,
  ),
  fulcioUrl: check(
    "--fulcio-url <url>",
    "--sign sigstore: certificate authority to ask (default: Sigstore's public one)",
    text,
  ),
  rekorUrl: check(
    "--rekor-url <url>",
    "--sign sigstore: log to enter it in (default: Sigstore's public one)",
    text,
  ),
  tsaUrl: check(
    "--tsa-url <url>",
    "--sign sigstore: timestamp authority to ask besides (default: none)",
    text,
  ),
  trustedRoot: check(
    "--trusted-root <file>",
    "trusted_root.json: authorities and logs to believe of a bundle signed without a key",
    text,
  ),
  sigstoreIdentity: check("--sigstore-identity <name>", "who must have signed such a bundle", text),
  sigstoreIssuer: check("--sigstore-issuer <url>", "who must have vouched for that identity", text),
  tokens: prompt(
    "--tokens <n>",
    "how many seeded ids (default: 64, after bundled text where there is a tokenizer)",
    integer(1, 2 ** 20),
  ),
  ids: prompt("--ids <list>", "token ids, as 1,2,3, instead of the seeded prompt", ids),
  idsFile: prompt(
    "--ids-file <file>",
    "token ids from a file: by commas or white space, or a JSON list",
    text,
  ),
  prompt: prompt("--prompt <text>", "text, through the checkpoint's tokenizer.json", text),
  chat: toggle(
    "prompt",
    "--chat",
    "--prompt is what a user says, put as the checkpoint's chat template has it",
  ),
  temperature: sample(
    "--temperature <x>",
    "draw the next token, logits divided by this (default: 0, always the best token)",
    decimal(0, 1000, "a number"),
  ),
  topK: sample("--top-k <n>", "draw from so many of the best tokens", integer(1, 2 ** 31)),
  topP: sample(
    "--top-p <fraction>",
    "draw from the best tokens that together have this probability",
    decimal(0, 1, "a fraction"),
  ),
  ignoreEos: toggle("sample", "--ignore-eos", "go on after the token that ends a text"),
  seed: prompt("--seed <n>", "seed of the prompt (default: 0)", integer(0, Number.MAX_SAFE_INTEGER)),
  backend: machine(
    "--backend <name>",
    "auto, webgpu or wasm (default: auto, a hardware GPU if there is one, else wasm)",
    choice(["auto", "webgpu", "wasm"]),
  ),
  device: machine("--device <name>", "the GPU that has this in its name", text),
  threads: machine("--threads <n>", "threads at work (default: one a core)", integer(1, 1024)),
  memory: machine("--memory <size>", "ceiling for buffers (default: 1GiB)", size),
  resume: toggle("files", "--resume", "continue an interrupted run"),
  overwrite: toggle("files", "--overwrite", "replace what is there, once the new one is verified"),
  include: several("hub", "--include <glob>", "only these files; may be given again"),
  exclude: several("hub", "--exclude <glob>", "not these files; may be given again"),
  revision: hub("--revision <name>", "branch, tag or commit (default: main)", text),
  localDir: hub("--local-dir <folder>", "into this folder instead of the cache", text),
  private: toggle("hub", "--private", "make a new repository private"),
  createPr: toggle("hub", "--create-pr", "open a pull request instead of committing to the branch"),
  commitMessage: hub("--commit-message <text>", "title of the commit", text),
  baseModel: hub("--base-model <owner/name>", "what was converted, for the model card", text),
  token: hub("--token <token>", "instead of HF_TOKEN, or the one that `hf auth login` kept", text),
  json: toggle("talk", "--json", "one JSON object on stdout, nothing else there"),
  report: talk(
    "--report <list>",
    "write reports, whatever the verdict: junit=F,sarif=F,html=F,md=F,json=F",
    reports,
  ),
  events: talk("--events <file>", "write progress to a file, one JSON object a line", text),
  quiet: toggle("talk", "--quiet", "no talk on stderr; errors still appear"),
  verbose: toggle("talk", "--verbose", "long lists in full; the stack of an unexpected error"),
  progress: toggle("talk", "--no-progress", "no progress bar"),
} as const;

export type FlagName = keyof typeof FLAGS;

/** What was given. `progress` is true unless `--no-progress` was. */
export type Flags = {
  readonly [K in FlagName]?: (typeof FLAGS)[K] extends Flag<infer T> ? T : never;
};

/** Groups of flags that several commands share. */
export const TALK = ["json", "quiet", "verbose", "progress"] as const satisfies readonly FlagName[];
export const WATCHED = [...TALK, "events"] as const satisfies readonly FlagName[];
export const REPORTED = [...WATCHED, "report"] as const satisfies readonly FlagName[];
export const TELLING = ["vocabSize", "like", "iteration"] as const satisfies readonly FlagName[];
export const MACHINE = ["backend", "device", "threads", "memory"] as const satisfies readonly FlagName[];
export const PROMPT = ["tokens", "ids", "idsFile", "prompt", "seed"] as const satisfies readonly FlagName[];
export const LIMITS = ["reference", "tolerance", "kl", "top1"] as const satisfies readonly FlagName[];
export const RECAST = [
  "dtype",
  "recipe",
  "keepEnds",
  "quantDialect",
  "allowOverflow",
  "keepExtra",
] as const satisfies readonly FlagName[];
export const PLACING = ["maxShardSize", "align", "tp", "pp"] as const satisfies readonly FlagName[];

/** The long name, as `--max-shard-size`. */
export const longOf = (name: FlagName): string => FLAGS[name].spec.split(" ")[0]!;
