/** The keys of models of blocks with Mamba or attention, and an MLP or experts: llama.cpp's `granitehybrid` and its relatives. */
import type { ObservedFacts, Passthrough } from "../../dialect.ts";
import type { Config, Settings } from "../../structure.ts";
import { attentionKeys, readTokenTable, tiedHead } from "./attention-keys.ts";
import type { Limit } from "./dialect.ts";
import type { GgufKeys } from "./keys.ts";
import { mambaKeys, mambaLimits, readMamba, wholeNormLimit } from "./mamba-keys.ts";
import { readGgufRotary } from "./rotary.ts";

export const GRANITE_HYBRID = "granitehybrid";

/** Whether only a share of each head is turned: then a file of this architecture is Bamba, else Granite. */
export function turnsShare(config: Config): boolean {
  const of = (name: string) => Number(config[`${GRANITE_HYBRID}.${name}`] ?? 0);
  const headDim = of("attention.key_length") || of("embedding_length") / of("attention.head_count");
  const turned = of("rope.dimension_count");
  // llama.cpp turns heads where a file does not say
  return config[`${GRANITE_HYBRID}.rope.scaling.finetuned`] !== false && turned > 0 && turned < headDim;
}

/** A Mamba mixer of a model without Mamba layers, which a file need not describe: nothing reads it. */
const noMixer = (hidden: number) => ({
  ...{ mambaHeads: 1, mambaHeadDim: 2 * hidden, state: 1, groups: 1, convKernel: 1 },
});

/**
 * Settings of attention and Mamba, and the mixer of each block: `M`, or `*` where it has heads of keys.
 *
 * @param turnsAlways whether the architecture turns heads, whatever the keys say
 */
export function readHybrid(keys: GgufKeys, config: Config, seen: ObservedFacts, turnsAlways = false) {
  const [hidden, heads] = [keys.count("embedding_length"), keys.count("attention.head_count")];
  const headDim = keys.count("attention.key_length", hidden / heads);
  const mixers = keys.perBlock("attention.head_count_kv").map((count) => (count > 0 ? "*" : "M"));
  const attention = mixers.flatMap((mixer, block) => (mixer === "*" ? [block] : []));
  const hasMixer = mixers.includes("M") || keys.has("ssm.inner_size");
  const names = new Set(seen.tensors.map(({ name }) => name));
  const settings: Settings = {
    ...{ hidden, vocab: readTokenTable(keys, seen), eps: keys.number("attention.layer_norm_rms_epsilon") },
    ...{ heads, headDim },
    // without attention nothing reads them
    kvHeads: attention.length === 0 ? heads : keys.common("attention.head_count_kv", attention),
    attentionBias: names.has(`blk.${attention[0]}.attn_q.bias`),
    tied: tiedHead(seen),
    ...(hasMixer ? readMamba(keys) : noMixer(hidden)),
    ...{ mambaProjBias: false, dtMin: 0, dtMax: "Infinity" },
    ...((turnsAlways || keys.flag("rope.scaling.finetuned", true)) &&
      readGgufRotary(keys, config, headDim, seen)),
  };
  return { mixers, settings };
}

/** @param own keys below the architecture that only one family has */
export function hybridKeys(
  architecture: string,
  settings: Settings,
  passthrough: Passthrough,
  own: Config,
): Config {
  const kvHeads = Number(settings.kvHeads);
  const mixers = mixersOf(settings);
  const isTurned = settings.rotary !== undefined;
  return attentionKeys(architecture, settings, passthrough, {
    ...{ block_count: mixers.length, ...own },
    "attention.head_count_kv": mixers.map((mixer) => (mixer === "*" ? kvHeads : 0)),
    ...mambaKeys(settings),
    "rope.scaling.finetuned": isTurned,
    ...(!isTurned && { "rope.dimension_count": settings.headDim }),
  });
}

/** Whether some block has a Mamba mixer. */
export const hasMamba = (settings: Settings): boolean => mixersOf(settings).includes("M");

/** What llama.cpp cannot compute of these models. */
export function hybridLimits(settings: Settings): readonly Limit[] {
  const { ropeScaling = "none", hidden, headDim } = settings;
  const inner = Number(settings.mambaHeads) * Number(settings.mambaHeadDim);
  return [
    [!mixersOf(settings).includes("*"), "it needs an attention layer, and this model has none"],
    ...(hasMamba(settings)
      ? [
          wholeNormLimit(settings),
          ...mambaLimits(settings),
          [
            inner !== 2 * Number(hidden),
            `it knows a Mamba mixer of twice the hidden width, and this model has ${inner} and ${hidden}`,
          ] as const,
        ]
      : []),
    [ropeScaling !== "none", `its files of this architecture are written without ${ropeScaling} scaling`],
    [
      Number(headDim) % 2 !== 0,
      `its files have the rows of heads in pairs, and this model has heads of ${headDim}`,
    ],
  ];
}

/** The letter of each block's mixer. */
const mixersOf = ({ pattern }: Settings): readonly string[] =>
  [...String(pattern)].filter((_, layer) => layer % 2 === 0);
