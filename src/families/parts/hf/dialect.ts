/** What the Hugging Face dialects of models of blocks share: names outside the layers, and one whole model. */
import type { Dialect, Rule } from "../../dialect.ts";
import type { Dims, Structure } from "../../structure.ts";

/** Names of the tensors outside the layers, and of the norms of a block's first layer. */
export function outerRules<D extends Dims>(): readonly Rule<D>[] {
  return [
    { name: "model.embed_tokens.weight", is: (of) => of("embed") },
    { name: "model.norm.weight", is: (of) => of("final.norm") },
    { name: "lm_head.weight", is: (of) => of("head") },
  ];
}

/** Some fine-tuned models that are tied store the head as well. */
export const tiedHeadRule = <D extends Dims & { readonly tied: number }>(): Rule<D> => ({
  ...{ name: "lm_head.weight", copy: true, readOnly: true, when: (d) => d.tied === 1 },
  is: (of) => of("embed"),
});

/** The model is not divided, and no row is padding. */
function wholeParallelism({ dims, layers }: Structure) {
  return { tp: 1, ep: 1, expertTp: 1, stages: [{ main: layers.length, mtp: 0 }], rows: dims.vocab };
}

type OwnParts<D extends Dims> = Pick<Dialect<D>, "rules" | "settings" | "config" | "keyOf" | "keyRemarks"> &
  Pick<Dialect<D>, "isSettingKey" | "isUnreadKey">;

/** The Hugging Face dialect of a model of blocks. */
export const hfDialect = <D extends Dims>(own: OwnParts<D>): Dialect<D> => ({
  ...own,
  id: "hf",
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
