/** Flags that say what of a model stays. */
import { LAYER_SCORES, UNIT_SCORES } from "../../pruning/options.ts";
import { flagGroup, oneOf } from "../flag.ts";
import { integerReader, type Reader, readText, refuseValue } from "../values.ts";

const width = integerReader(1, 2 ** 31);

/** `mamba=45,attention=5` */
const readCounts: Reader<Readonly<Record<string, number>>> = (given, name) => {
  const entries = given.split(",").map((entry): readonly [string, number] => {
    const [, kind, count] = /^\s*([a-z]+)\s*=\s*(\d+)\s*$/.exec(entry) ?? [];
    return kind === undefined
      ? refuseValue(name, given, "counts of layers, such as mamba=45,mlp=48")
      : [kind, Number(count)];
  });
  if (new Set(entries.map(([kind]) => kind)).size < entries.length)
    refuseValue(name, given, "each kind once");
  return Object.fromEntries(entries);
};

const readLayers: Reader<readonly number[]> = (given, name) =>
  given.split(",").map((layer) => integerReader(0, 1e6)(layer.trim(), `a layer of ${name}`));

export const PRUNING_FLAGS = flagGroup("What stays:", {
  layers: {
    spec: "--layers <counts>",
    about:
      "how many layers of each kind stay, the best first, such as mamba=45,attention=5; kinds that are not named stay whole",
    read: readCounts,
  },
  drop: {
    spec: "--drop <list>",
    about: "layers that go, by their numbers in SRC, such as 7,29; needs no scores",
    read: readLayers,
  },
  ffn: { spec: "--ffn <n>", about: "width of the MLP layers", read: width },
  mambaHeads: {
    spec: "--mamba-heads <n>",
    about: "number of Mamba heads, as many in each group",
    read: width,
  },
  rescaleGain: {
    spec: "--rescale-gain",
    about:
      "with --mamba-heads: multiply the gains of the gated norms by the root of all heads / heads that stay, so that silent heads go without a trace",
  },
  heads: {
    spec: "--heads <n>",
    about: "number of query heads, as many for each key and value head",
    read: width,
  },
  score: {
    spec: "--score <name>",
    about:
      "score by which channels and heads are ranked; preactivation is for MLP channels, heads then go by activation",
    default: "contribution",
    ...oneOf(UNIT_SCORES),
  },
  layerScore: {
    spec: "--layer-score <name>",
    about: "score by which layers are ranked",
    default: "mse",
    ...oneOf(LAYER_SCORES),
  },
  iterative: {
    spec: "--iterative",
    about:
      "with --layers: drop layers one at a time, the least first, and measure all others again on the prompts after each; needs no scores",
  },
  importance: {
    spec: "--importance <file>",
    about: "scores of SRC, which `isologit importance` wrote; needed wherever a choice is made",
    read: readText,
  },
});
