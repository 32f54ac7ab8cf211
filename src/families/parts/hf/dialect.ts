/** What the Hugging Face dialects of models of blocks share: names outside the layers, and one whole model. */
import { IsologitError } from "../../../core/errors.ts";
import type { Dialect, Rule } from "../../dialect.ts";
import type { Config, Dims, Settings } from "../../structure.ts";
import { type ConfigJson, refuseOtherWeights } from "../config-json.ts";
import { wholeParallelism } from "../whole-parallelism.ts";
import { readPassthrough } from "./config.ts";

/**
 * Names of the tensors outside the layers.
 *
 * @param norm name of the final norm's weight
 */
export function outerRules<D extends Dims>(norm = "model.norm.weight"): readonly Rule<D>[] {
  return [
    { name: "model.embed_tokens.weight", is: (of) => of("embed") },
    { name: norm, is: (of) => of("final.norm") },
    { name: "lm_head.weight", is: (of) => of("head") },
  ];
}

/** Some fine-tuned models that are tied store the head as well. */
export const tiedHeadRule = <D extends Dims & { readonly tied: number }>(): Rule<D> => ({
  ...{ name: "lm_head.weight", copy: true, readOnly: true, when: (d) => d.tied === 1 },
  is: (of) => of("embed"),
});

/** What a dialect says of config keys, from the tables of its reader. */
export const keysIn = (
  reader: ConfigJson,
): Required<Pick<Dialect, "keyOf" | "keyRemarks" | "isSettingKey" | "isUnreadKey">> => ({
  keyOf: (setting) => reader.keyOf(setting),
  keyRemarks: (config) => reader.remarks(config),
  isSettingKey: (key) => reader.isSettingKey(key),
  isUnreadKey: (key) => reader.isUnreadKey(key),
});

interface OwnParts<D extends Dims>
  extends Pick<Dialect<D>, "rules" | "keyOf" | "keyRemarks" | "isSettingKey" | "isUnreadKey">,
    Partial<Pick<Dialect<D>, "config">> {
  /** @throws CONFIG_INVALID, UNSUPPORTED; each names the key */
  readSettings(config: Config): Settings;
}

/** A config is written only for a model from another dialect. */
function refuseConfig(): never {
  throw new IsologitError("INTERNAL", "this family has one dialect, and its configs are only copied");
}

/** The Hugging Face dialect of a model of blocks. Without `config` the family must have no other dialect. */
export const hfDialect = <D extends Dims>({ readSettings, ...own }: OwnParts<D>): Dialect<D> => ({
  config: refuseConfig,
  ...own,
  id: "hf",
  settings(config, { files }) {
    if (files !== undefined) refuseOtherWeights(config, files);
    return { settings: readSettings(config), passthrough: readPassthrough(config), notes: [] };
  },
  stacks: { main: "model.layers.{outer}." },
  // older releases saved the frequencies, which follow from the config
  drop: [
    {
      match: /(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$/,
      why: "frequencies that the config gives",
    },
  ],
  objects: () => [],
  vocabulary: ({ vocab_size }) => (typeof vocab_size === "number" ? vocab_size : undefined),
  parallelism: (_, model) => wholeParallelism(model),
  cut: wholeParallelism,
});
