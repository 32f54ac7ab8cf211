/** The keys that models of attention and MLPs have in common. */
import type { ObservedFacts, Passthrough } from "../../dialect.ts";
import type { Config, Settings } from "../../structure.ts";
import type { AttentionSettings } from "../attention/settings.ts";
import type { GgufKeys } from "./keys.ts";
import { readGgufRotary, rotaryKeys } from "./rotary.ts";

/** A context length for models that name none: llama.cpp refuses a file without one, and computes nothing with it. */
const CONTEXT = 4096;

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readAttention(keys: GgufKeys, config: Config, seen: ObservedFacts): AttentionSettings {
  const [hidden, heads] = [keys.count("embedding_length"), keys.count("attention.head_count")];
  const headDim = keys.count("attention.key_length", hidden / heads);
  const table = seen.tensors.find(({ name }) => name === "token_embd.weight");
  return {
    hidden,
    vocab: table?.shape[0] ?? keys.count("vocab_size"),
    eps: keys.number("attention.layer_norm_rms_epsilon"),
    heads,
    kvHeads: keys.count("attention.head_count_kv", heads),
    headDim,
    ...readGgufRotary(keys, config, headDim, seen),
  };
}

/** Whether a file has a token table and no head: the table is the head. */
export function tiedHead({ tensors }: ObservedFacts): boolean {
  const names = new Set(tensors.map(({ name }) => name));
  return names.has("token_embd.weight") && !names.has("output.weight");
}

/** @param own keys below the architecture that only one family has */
export function attentionKeys(
  architecture: string,
  settings: Settings,
  passthrough: Passthrough,
  own: Config,
): Config {
  const rotary = rotaryKeys(settings);
  const keys: Config = {
    ...own,
    context_length: passthrough.maxPositions ?? CONTEXT,
    embedding_length: settings.hidden,
    "attention.head_count": settings.heads,
    "attention.head_count_kv": settings.kvHeads,
    ...rotary.keys,
    "attention.layer_norm_rms_epsilon": settings.eps,
    "attention.key_length": settings.headDim,
    "attention.value_length": settings.headDim,
    vocab_size: settings.vocab,
  };
  const named = Object.entries(keys).map(([key, value]) => [`${architecture}.${key}`, value] as const);
  return { "general.architecture": architecture, ...Object.fromEntries(named), ...rotary.own };
}
