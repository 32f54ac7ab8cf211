/** docs/config-keys.md, written from the tables that it describes. */

import { reader as bamba } from "../../src/families/bamba/hf/config.ts";
import { reader as falcon } from "../../src/families/falcon_h1/hf/config.ts";
import * as falconFields from "../../src/families/falcon_h1/megatron/fields.ts";
import * as falconKeys from "../../src/families/falcon_h1/megatron/keys.ts";
import { reader as granite } from "../../src/families/granitemoehybrid/hf/config.ts";
import { configReader as llama } from "../../src/families/llama/hf/keys.ts";
import { configReader as mixtral } from "../../src/families/mixtral/hf/keys.ts";
import { reader as nemotron } from "../../src/families/nemotron/hf/config.ts";
import * as hf from "../../src/families/nemotron-h/hf/other-keys.ts";
import { SETTING_KEYS, SOURCES } from "../../src/families/nemotron-h/hf/setting-keys.ts";
import { FIELDS, type Field, namesOf, PASSTHROUGH } from "../../src/families/nemotron-h/megatron/fields.ts";
import { FIXED_KEYS } from "../../src/families/nemotron-h/megatron/keys.ts";
import * as megatron from "../../src/families/nemotron-h/megatron/unread-keys.ts";
import type { ConfigJson } from "../../src/families/parts/config-json.ts";
import type { OnlyKey, UnreadKeys } from "../../src/families/parts/config-keys.ts";
import { NOTED_KEYS } from "../../src/families/parts/megatron/fixed-keys.ts";
import { PROCESS_KEYS } from "../../src/families/parts/megatron/process-keys.ts";
import { COMMON_UNREAD_KEYS } from "../../src/families/parts/megatron/unread-keys.ts";
import { COMMON_ONLY_KEYS } from "../../src/families/parts/transformers-keys.ts";

const WHERE: Readonly<Record<string, string>> = {
  ...{
    M: "Mamba layers",
    "*": "attention layers",
    "-": "MLP layers",
    E: "experts",
    steps: "prediction steps",
  },
  "many steps": "more than one prediction step",
};

export function keysPage(): string {
  return [
    INTRODUCTION,
    "## Nemotron-H, config.json: settings",
    ABOUT_SETTINGS,
    table(
      ["setting", "keys", "where absent", "in models with", "read in"],
      SETTING_KEYS.map(({ setting, key, others = [], absent, on, source }) => [
        setting,
        [key, ...others.map((other) => other.key)].map(code).join(", "),
        absent === undefined ? "refused" : code(JSON.stringify(absent)),
        where(on),
        SOURCES[source],
      ]),
    ),
    "## Nemotron-H, config.json: keys that are read at one value only",
    "Any other value is refused (`UNSUPPORTED`, exit 3), with key, value and default.",
    onlyTable(hf.ONLY_KEYS),
    "## Nemotron-H, config.json: keys on which nothing depends",
    unreadTable(hf.UNREAD_KEYS),
    "## Nemotron-H, Megatron records: settings",
    ABOUT_FIELDS,
    table(
      ["setting", "keys", "where absent", "in models with"],
      FIELDS.filter(({ does }) => does === undefined).map((field) => [
        field.setting ?? "–",
        namesOf(field).map(code).join(", "),
        absence(field),
        where(field.on),
      ]),
    ),
    "## Nemotron-H, Megatron records: keys that are read at one value only",
    ABOUT_FIXED,
    onlyTable([...FIELDS.flatMap(asOnly), ...FIXED_KEYS]),
    "## Nemotron-H, Megatron records: keys that are reported",
    "They change only the precision. A value that is not usual gives a note of `check` (`config-precision`), a warning of `convert` and a finding of `verify`.",
    table(
      ["key", "usual", "what another value means", "read in"],
      NOTED_KEYS.map(({ key, usual, says, source }) => [code(key), values(usual), says, source]),
    ),
    "## Nemotron-H, Megatron records: keys on which nothing depends",
    unreadTable(megatron.UNREAD_KEYS),
    ...OTHERS.flatMap(([type, reader]) => familyPart(type, reader)),
    "## falcon_h1, records of Megatron-Bridge",
    ABOUT_FALCON,
    table(
      ["setting", "key", "where absent"],
      falconFields.FIELDS.map(({ setting, key, absent }) => [
        setting,
        code(key),
        absent === undefined ? "refused" : code(JSON.stringify(absent)),
      ]),
    ),
    `Read by rules of their own: ${falconFields.OTHER_KEYS.map(code).join(", ")}.`,
    onlyTable(falconKeys.FIXED_KEYS),
    unreadTable(falconKeys.UNREAD_KEYS.filter((row) => !COMMON_UNREAD_KEYS.includes(row))),
  ]
    .join("\n\n")
    .concat("\n");
}

/** Readers of the other families' config.json, by model type. */
const OTHERS: readonly (readonly [string, ConfigJson])[] = [
  ...(["llama", "mistral", "qwen2", "qwen3"] as const).map((type) => [type, llama(type)] as const),
  ["nemotron", nemotron],
  ...(["mixtral", "qwen3_moe"] as const).map((type) => [type, mixtral(type)] as const),
  ...([
    ["bamba", bamba],
    ["granitemoehybrid", granite],
    ["falcon_h1", falcon],
  ] as const),
];

/** Keys of one model type; those that Transformers reads for every model are in the part on Nemotron-H. */
function familyPart(type: string, { tables }: ConfigJson): readonly string[] {
  const common = new Set(COMMON_ONLY_KEYS.map(({ key }) => key));
  return [
    `## ${type}, config.json`,
    table(
      ["setting", "keys", "where absent"],
      tables.settings.map(({ setting, key, others = [], absent, nullable }) => [
        setting,
        [key, ...others.map((other) => other.key)].map(code).join(", "),
        absent !== undefined
          ? code(JSON.stringify(absent))
          : nullable === true
            ? "from other keys"
            : "refused",
      ]),
    ),
    ...((tables.others ?? []).length === 0
      ? []
      : [`Read by rules of their own: ${tables.others!.map(code).join(", ")}.`]),
    onlyTable(tables.only.filter(({ key }) => !common.has(key))),
  ];
}

const INTRODUCTION = `# Which config keys are read

A model's config has many keys. Isologit sorts each key that an engine reads into one of four kinds: a **setting**; a key that is read
**at one value only**; a key **on which nothing depends**; an **unknown** key. This page is generated from the tables in
\`src/families/\`. Tests compare Nemotron-H's tables with the classes of the real libraries (\`fixtures/config-keys/\`), and this page with the tables.

- For an unknown key, \`check\` gives a warning (\`config-key-unknown\`), \`convert\` gives a warning if the destination's config cannot hold the
  key, and \`verify\` gives a finding. If two Hugging Face configs differ in any key, a finding names the key.
- Sources are files of Transformers 5.12.1, NVIDIA's code in the published checkpoints, vLLM, Megatron-LM (core 0.9.0 to 0.19.0, and
  trunk of August 2026), Megatron-Bridge and NeMo.`;

const ABOUT_SETTINGS = `Transformers defines what a key means. If a setting has several keys, all that are present must agree, because engines differ
in which key they read: Transformers prefers \`layer_types\` to \`layers_block_type\` to \`hybrid_override_pattern\`, and \`mamba_n_groups\` to
\`n_groups\`; NVIDIA's code and vLLM prefer the others. Keys that disagree are refused (\`CONFIG_INVALID\`, with both values). Only other engines read
\`rms_norm_eps\` and \`norm_eps\`: without \`layer_norm_epsilon\` they must be 1e-5, the value that Transformers uses then. \`null\` is read as absent
unless an engine reads something else in it; \`check\` warns of a \`null\` that Transformers refuses (\`config-null\`). \`num_hidden_layers\` must be
the length of the pattern. \`transformers_weights\` must name the weights that are read, because Transformers loads the file that it names.`;

const ABOUT_FIELDS = `These keys are read from NeMo 1's \`model_config.yaml\`, the \`config\` of NeMo 2's \`model.yaml\`, the \`model\` of Megatron-Bridge's
\`run_config.yaml\` and the arguments that Megatron-LM stores. \`null\` is read as absent. The pattern (\`hybrid_layer_pattern\` or
\`hybrid_override_pattern\`), \`num_layers\` and the keys for parallelism are read separately: [formats.md](formats.md#settings).`;

const ABOUT_FIXED = `Any other value is refused (\`UNSUPPORTED\`, exit 3), with key, value and default. A config that has experts but not
\`moe_router_score_function\` or \`moe_router_enable_expert_bias\` means Megatron's own default, which is refused too. The norm
inside a Mamba layer has the epsilon 1e-5 in Megatron, whatever the value of \`layernorm_epsilon\` (\`megatron/core/ssm/mamba_mixer.py\`). It is computed
with 1e-5; if the two differ, no config.json can describe the model.`;

const ABOUT_FALCON = `The class \`FalconH1ModelProvider\` decides that a record is one of Falcon-H1. Defaults are those of the class; \`num_query_groups\`,
\`kv_channels\` and \`mamba_num_heads\` may be \`null\`, and are then computed as the class computes them. \`activation_func\` must be silu, because without
the key Megatron uses gelu. The norm inside the mixer has the epsilon 1e-5, as in Nemotron-H. Keys on which no model's forward pass depends
are in the part on Nemotron-H.`;

function absence({ setting, absent, derived }: Field): string {
  if (setting === undefined || PASSTHROUGH.includes(setting)) return "no effect";
  if (absent !== undefined) return code(JSON.stringify(absent));
  return derived === undefined
    ? "read from the weights, else refused"
    : "read from the weights, else derived";
}

function asOnly(field: Field): OnlyKey[] {
  const { does, otherwise, on } = field;
  if (does === undefined) return [];
  const source = "megatron/core/transformer/transformer_config.py";
  return namesOf(field).map((key) => ({
    key,
    source,
    only: [otherwise],
    does,
    ...(on !== undefined && { on }),
  }));
}

function onlyTable(rows: readonly OnlyKey[]): string {
  return table(
    ["key", "read at", "what another value does", "in models with", "read in"],
    rows.map(({ key, only, never, does, on, source }) => [
      code(key),
      never === undefined ? values(only) : `all but ${values(never)}`,
      `it ${does}`,
      where(on),
      source,
    ]),
  );
}

function unreadTable(rows: readonly UnreadKeys[]): string {
  return table(
    ["why", "keys", "read in"],
    rows.map(({ why, keys, source }) => {
      const many = keys.join(" ") === PROCESS_KEYS.trim().split(/\s+/).join(" ");
      const named = many
        ? `${keys.length} keys: \`megatron/process-keys.ts\` lists them`
        : keys.map(code).join(", ");
      return [why, named, source];
    }),
  );
}

const values = (list: readonly unknown[]) => list.map((value) => code(spelt(value))).join(", ");
const spelt = (value: unknown) =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? "squared relu"
    : JSON.stringify(value);
const code = (text: string) => `\`${text}\``;
const where = (on: string | undefined) => (on === undefined ? "all" : WHERE[on]!);

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}
