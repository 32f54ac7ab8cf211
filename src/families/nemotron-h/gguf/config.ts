/** Reads the settings of Nemotron-H from the keys of a GGUF. The layer pattern follows from two lists with a number for each block. */
import { IsologitError } from "../../../core/errors.ts";
import type { ObservedFacts, ParsedConfig } from "../../dialect.ts";
import { GgufKeys } from "../../parts/gguf/keys.ts";
import { readMamba } from "../../parts/gguf/mamba-keys.ts";
import type { Config } from "../../structure.ts";
import { type NemotronHSettings, refuseExcess } from "../settings.ts";

/** Models without experts, and with them. */
export const ARCHITECTURES = { dense: "nemotron_h", experts: "nemotron_h_moe" } as const;

/** The layers of a prediction step, which llama.cpp computes as one block. */
export const STEP_PATTERN = "*E";

/** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
export function readSettings(config: Config, { tensors }: ObservedFacts): ParsedConfig {
  const keys = new GgufKeys(config);
  const hasExperts = keys.architecture === ARCHITECTURES.experts;
  const steps = keys.has("nextn_predict_layers") ? keys.count("nextn_predict_layers") : 0;
  const main = keys.blocks - steps;
  if (main < 1) keys.refuse("nextn_predict_layers", "must be smaller than the number of blocks");
  const pattern = patternOf(keys, main, hasExperts);
  const layersOf = (letter: string) => [...pattern].flatMap((kind, i) => (kind === letter ? [i] : []));
  const has = (letter: string) => pattern.includes(letter) || (steps > 0 && STEP_PATTERN.includes(letter));
  const hidden = keys.count("embedding_length");
  const rows = tensors.find(({ name }) => name === "token_embd.weight")?.shape[0];
  const settings = {
    pattern,
    hidden,
    vocab: rows ?? keys.count("vocab_size"),
    eps: keys.has("attention.layer_norm_rms_epsilon")
      ? keys.number("attention.layer_norm_rms_epsilon")
      : keys.number("attention.layer_norm_epsilon"),
    ...{ dtMin: 0, dtMax: "Infinity" as const },
    ...(has("M") && readMamba(keys)),
    ...(has("*") && {
      heads: keys.count("attention.head_count"),
      kvHeads: keys.common("attention.head_count_kv", blocksWith(layersOf("*"), main, steps)),
      headDim: keys.count("attention.key_length", hidden / keys.count("attention.head_count")),
    }),
    ...(has("-") && { ffn: keys.common("feed_forward_length", layersOf("-")) }),
    ...(has("E") && expertSettings(keys)),
    ...(steps > 0 && { mtpPattern: STEP_PATTERN, mtpSteps: steps }),
  } satisfies NemotronHSettings;
  refuseExcess(settings);
  const tied = tensors.length > 0 && !tensors.some(({ name }) => name === "output.weight");
  return { settings, passthrough: {}, notes: [], tied };
}

/** A block without attention and feed-forward is Mamba, one without feed-forward is attention. */
function patternOf(keys: GgufKeys, main: number, hasExperts: boolean): string {
  const [kvHeads, ffn] = [keys.perBlock("attention.head_count_kv"), keys.perBlock("feed_forward_length")];
  return Array.from({ length: main }, (_, i) => {
    if (ffn[i]! > 0) return hasExperts ? "E" : "-";
    return kvHeads[i]! > 0 ? "*" : "M";
  }).join("");
}

/** The given layers of the main stack, and the blocks of prediction steps. */
function blocksWith(layers: readonly number[], main: number, steps: number): readonly number[] {
  return [...layers, ...Array.from({ length: steps }, (_, i) => main + i)];
}

function expertSettings(keys: GgufKeys) {
  if (keys.has("expert_shared_count") && keys.count("expert_shared_count") !== 1) {
    const message = `${keys.architecture}.expert_shared_count is not 1; models with one shared expert are read`;
    throw new IsologitError("UNSUPPORTED", message);
  }
  const scale = keys.number("expert_weights_scale", 1);
  return {
    experts: keys.count("expert_count"),
    topK: keys.count("expert_used_count"),
    moeFfn: keys.count("expert_feed_forward_length"),
    moeShared: keys.count("expert_shared_feed_forward_length"),
    latent: keys.has("moe_latent_size") ? keys.count("moe_latent_size") : 0,
    routeGroups: keys.count("expert_group_count", 1),
    routeTopGroups: keys.count("expert_group_used_count", 1),
    routeNormalise: keys.flag("expert_weights_norm", false),
    routeScale: scale === 0 ? 1 : scale, // llama.cpp scales by any number but 0
  };
}
