/**
 * Nemotron-H: hybrid Mamba-2 / Transformer. Roles with their shapes, settings, recipes.
 * @see arXiv 2504.03624; shapes as in the published 4B to 56B checkpoints
 */
import { type ErrorLocation, IsologitError } from "../../core/errors.ts";
import type { Recipe } from "../family.ts";
import type { Dims, Layer, LayerKind, RoleSpec, Settings } from "../structure.ts";

export const LETTERS: Readonly<Record<string, LayerKind>> = {
  M: "mamba",
  "*": "attention",
  "-": "mlp",
  E: "moe",
};

/** Settings of the forward pass. Keys that only mixture-of-experts layers use are absent from dense models. */
export interface NemotronSettings extends Settings {
  readonly pattern: string;
  readonly hidden: number;
  readonly vocab: number;
  readonly eps: number;
  /** of the norm inside a Mamba mixer, where it is another */
  readonly mixerEps?: number;
  /** Δ is clamped to these after softplus; an upper limit of "Infinity" is none */
  readonly dtMin: number;
  readonly dtMax: number | "Infinity";
}

/** @throws CONFIG_INVALID where a router cannot choose as the settings ask */
export function dims(settings: Settings): Dims {
  refuseRouting(settings);
  const of = (name: string) => (typeof settings[name] === "number" ? settings[name] : 0);
  const inner = of("mambaHeads") * of("mambaHeadDim");
  const groupState = of("groups") * of("state");
  return {
    hidden: of("hidden"),
    vocab: of("vocab"),
    eps: of("eps"),
    // of the norm inside a Mamba mixer
    mixerEps: of("mixerEps") || of("eps"),
    dtMin: of("dtMin"),
    dtMax: settings.dtMax === "Infinity" ? Infinity : of("dtMax"),
    inner,
    mambaHeads: of("mambaHeads"),
    mambaHeadDim: of("mambaHeadDim"),
    groups: of("groups"),
    state: of("state"),
    groupState,
    conv: inner + 2 * groupState,
    taps: of("convKernel"),
    heads: of("heads"),
    kvHeads: of("kvHeads"),
    headDim: of("headDim"),
    q: of("heads") * of("headDim"),
    kv: of("kvHeads") * of("headDim"),
    ffn: of("ffn"),
    experts: of("experts"),
    moeFfn: of("moeFfn"),
    moeShared: of("moeShared"),
    latent: of("latent"),
    topK: of("topK"),
    routeGroups: of("routeGroups"),
    routeTopGroups: of("routeTopGroups"),
    routeNormalise: settings.routeNormalise === true ? 1 : 0,
    routeScale: of("routeScale"),
    // a latent projection makes routed experts narrower than the stream
    moeWidth: of("latent") || of("hidden"),
  };
}

/** A group is worth its two best experts, and the groups that are kept must hold enough of them. */
function refuseRouting({ experts, topK, routeGroups: groups, routeTopGroups: kept }: Settings): void {
  if (typeof experts !== "number") return;
  const invalid = (message: string) => new IsologitError("CONFIG_INVALID", message);
  const size = experts / Number(groups);
  if (!Number.isInteger(size) || (groups !== 1 && size < 2))
    throw invalid(`${experts} experts cannot be cut into ${groups} equal groups of at least 2`);
  if (!(Number(kept) <= Number(groups) && Number(topK) <= size * Number(kept)))
    throw invalid(`a token cannot choose ${topK} of ${experts} experts in ${kept} of ${groups} groups`);
}

/** Every layer: the main stack, then each multi-token prediction step's layers, numbered on. */
export function layers(settings: Settings): readonly Layer[] {
  const stack = (name: "main" | "mtp", pattern: string, steps: number): Layer[] =>
    Array.from({ length: steps * pattern.length }, (_, index) => ({
      stack: name,
      index,
      kind: kindOf(pattern[index % pattern.length]!),
      inner: index % pattern.length,
      of: pattern.length,
    }));
  const steps = Number(settings.mtpSteps ?? 0);
  return [
    ...stack("main", String(settings.pattern), 1),
    ...stack("mtp", String(settings.mtpPattern ?? ""), steps),
  ];
}

function kindOf(letter: string): LayerKind {
  const kind = LETTERS[letter];
  if (kind === undefined)
    throw new IsologitError("CONFIG_INVALID", `layer letter ${JSON.stringify(letter)} is not one of M * - E`);
  return kind;
}

/** A list of all that a model consists of is made from its config. Published models have up to 118 layers of 512 experts. */
const MAX_LAYERS = 4096;
const MAX_EXPERTS = 2 ** 18;

/** @throws LIMIT_EXCEEDED */
export function refuseExcess(settings: Settings, at: ErrorLocation = {}): void {
  const main = String(settings.pattern).length;
  const layers = main + Number(settings.mtpSteps ?? 0) * String(settings.mtpPattern ?? "").length;
  const counts = [
    ["layers", layers, MAX_LAYERS],
    ["experts", main * Number(settings.experts ?? 0), MAX_EXPERTS],
  ] as const;
  for (const [what, count, most] of counts) {
    if (count > most)
      throw new IsologitError("LIMIT_EXCEEDED", `${count} ${what}, expected at most ${most}`, at);
  }
}

const experts = (d: Dims) => d.experts!;
const latent = (d: Dims) => d.latent! > 0;

/** In execution order within a layer: what is written first is read first. */
export const roles: readonly RoleSpec[] = [
  { role: "embed", kind: "embedding", shape: (d) => [d.vocab!, d.hidden!] },

  { role: "mtp.embed_norm", on: "every", mtp: "first", kind: "vector", shape: (d) => [d.hidden!] },
  { role: "mtp.hidden_norm", on: "every", mtp: "first", kind: "vector", shape: (d) => [d.hidden!] },
  { role: "mtp.join", on: "every", mtp: "first", kind: "matrix", shape: (d) => [d.hidden!, 2 * d.hidden!] },

  { role: "norm", on: "every", kind: "vector", shape: (d) => [d.hidden!] },

  {
    role: "ssm.in",
    on: ["mamba"],
    kind: "matrix",
    shape: (d) => [d.inner! + d.conv! + d.mambaHeads!, d.hidden!],
  },
  { role: "ssm.conv", on: ["mamba"], kind: "vector", shape: (d) => [d.conv!, 1, d.taps!] },
  { role: "ssm.conv.bias", on: ["mamba"], kind: "vector", shape: (d) => [d.conv!] },
  { role: "ssm.A_log", on: ["mamba"], kind: "state", shape: (d) => [d.mambaHeads!] },
  { role: "ssm.D", on: ["mamba"], kind: "state", shape: (d) => [d.mambaHeads!] },
  { role: "ssm.dt_bias", on: ["mamba"], kind: "state", shape: (d) => [d.mambaHeads!] },
  { role: "ssm.norm", on: ["mamba"], kind: "vector", shape: (d) => [d.inner!] },
  { role: "ssm.out", on: ["mamba"], kind: "matrix", shape: (d) => [d.hidden!, d.inner!] },

  { role: "attn.q", on: ["attention"], kind: "matrix", fused: "qkv", shape: (d) => [d.q!, d.hidden!] },
  { role: "attn.k", on: ["attention"], kind: "matrix", fused: "qkv", shape: (d) => [d.kv!, d.hidden!] },
  { role: "attn.v", on: ["attention"], kind: "matrix", fused: "qkv", shape: (d) => [d.kv!, d.hidden!] },
  { role: "attn.o", on: ["attention"], kind: "matrix", shape: (d) => [d.hidden!, d.q!] },

  { role: "mlp.up", on: ["mlp"], kind: "matrix", shape: (d) => [d.ffn!, d.hidden!] },
  { role: "mlp.down", on: ["mlp"], kind: "matrix", shape: (d) => [d.hidden!, d.ffn!] },

  { role: "moe.gate", on: ["moe"], kind: "router", shape: (d) => [d.experts!, d.hidden!] },
  { role: "moe.gate.bias", on: ["moe"], kind: "router", shape: (d) => [d.experts!] },
  { role: "moe.latent.in", on: ["moe"], kind: "matrix", shape: (d) => [d.latent!, d.hidden!], when: latent },
  { role: "moe.up", on: ["moe"], kind: "matrix", experts, shape: (d) => [d.moeFfn!, d.moeWidth!] },
  { role: "moe.down", on: ["moe"], kind: "matrix", experts, shape: (d) => [d.moeWidth!, d.moeFfn!] },
  { role: "moe.latent.out", on: ["moe"], kind: "matrix", shape: (d) => [d.hidden!, d.latent!], when: latent },
  { role: "moe.shared.up", on: ["moe"], kind: "matrix", shape: (d) => [d.moeShared!, d.hidden!] },
  { role: "moe.shared.down", on: ["moe"], kind: "matrix", shape: (d) => [d.hidden!, d.moeShared!] },

  { role: "mtp.final_norm", on: "every", mtp: "last", kind: "vector", shape: (d) => [d.hidden!] },

  { role: "final.norm", kind: "vector", shape: (d) => [d.hidden!] },
  { role: "head", kind: "matrix", tiedTo: "embed", shape: (d) => [d.vocab!, d.hidden!] },
];

export const recipes: readonly Recipe[] = [
  {
    // The training recipe: current scaling for the GEMMs of Mamba and MLP blocks, two layers at each end in BF16.
    id: "nemotron-h",
    keepEnds: 2,
    cast: [
      "ssm.in",
      "ssm.out",
      "mlp.up",
      "mlp.down",
      "moe.up",
      "moe.down",
      "moe.shared.up",
      "moe.shared.down",
    ],
  },
  {
    id: "all-linear",
    keepEnds: 0,
    cast: ["ssm.in", "ssm.out", "attn.*", "mlp.*", "moe.*", "head"],
  },
];
