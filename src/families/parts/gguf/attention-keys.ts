/** The keys that models of attention and MLPs have in common. */
import type { ObservedFacts, Passthrough } from "../../dialect.ts";
import type { Config, Settings } from "../../structure.ts";
import type { AttentionSettings } from "../attention/settings.ts";
import { exactKeys, type GgufKeys } from "./keys.ts";
import { readGgufRotary, rotaryKeys } from "./rotary.ts";

/** A context length for models that name none: llama.cpp refuses a file without one, and computes nothing with it. */
const CONTEXT = 4096;

/** Keys of the epsilon: of RMS norms, and of norms that take the mean away. */
const EPSILON = { rms: "attention.layer_norm_rms_epsilon", layer: "attention.layer_norm_epsilon" } as const;
type Norm = keyof typeof EPSILON;

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readAttention(
  keys: GgufKeys,
  config: Config,
  seen: ObservedFacts,
  norm: Norm = "rms",
): AttentionSettings {
  const [hidden, heads] = [keys.count("embedding_length"), keys.count("attention.head_count")];
  const headDim = keys.count("attention.key_length", hidden / heads);
  return {
    hidden,
    vocab: readTokenTable(keys, seen),
    eps: keys.number(EPSILON[norm]),
    heads,
    kvHeads: keys.count("attention.head_count_kv", heads),
    headDim,
    ...readGgufRotary(keys, config, headDim, seen),
  };
}

/** The rows of the token table. */
export const readTokenTable = (keys: GgufKeys, { tensors }: ObservedFacts): number =>
  tensors.find(({ name }) => name === "token_embd.weight")?.shape[0] ?? keys.count("vocab_size");

/** Whether a file has a token table and no head: the table is the head. */
export function tiedHead({ tensors }: ObservedFacts): boolean {
  const names = new Set(tensors.map(({ name }) => name));
  return names.has("token_embd.weight") && !names.has("output.weight");
}

/** @param own keys below the architecture that only one family has; a list of heads of keys takes the place of their number */
export function attentionKeys(
  architecture: string,
  settings: Settings,
  passthrough: Passthrough,
  own: Config,
  norm: Norm = "rms",
): Config {
  const rotary = rotaryKeys(settings);
  const keys: Config = {
    ...own,
    context_length: passthrough.maxPositions ?? CONTEXT,
    embedding_length: settings.hidden,
    "attention.head_count": settings.heads,
    "attention.head_count_kv": own["attention.head_count_kv"] ?? settings.kvHeads,
    ...rotary.keys,
    [EPSILON[norm]]: settings.eps,
    "attention.key_length": settings.headDim,
    "attention.value_length": settings.headDim,
    vocab_size: settings.vocab,
  };
  const named = Object.entries(keys).map(([key, value]) => [`${architecture}.${key}`, value] as const);
  const exact = exactKeys(keys, architecture);
  return { "general.architecture": architecture, ...Object.fromEntries(named), ...rotary.own, ...exact };
}
