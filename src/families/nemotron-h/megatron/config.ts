/** Reads the settings from the config records of Megatron, Megatron-Bridge and NeMo. */
import { IsologitError } from "../../../core/errors.ts";
import { canonicalJson } from "../../../core/hash.ts";
import type { ObservedFacts, ParsedConfig } from "../../dialect.ts";
import { placesOf, refuseOtherValues, unsupportedKeyError } from "../../parts/config-keys.ts";
import { MIXER_EPSILON } from "../../parts/megatron/mamba-rules.ts";
import type { Config, Settings } from "../../structure.ts";
import { LETTERS, refuseExcess } from "../settings.ts";
import { classSettings } from "./classes.ts";
import { CONV_KERNEL, FIELDS, type Field, namesOf, normalizesScores, PASSTHROUGH } from "./fields.ts";
import { FIXED_KEYS } from "./keys.ts";
import { readSizes, type Size } from "./sizes.ts";

/**
 * Whether a record describes a hybrid model: by its pattern, else by the name of its class or layers. A pattern without Mamba
 * may also describe a dense model, which has rotary positions. Sizes of Mamba decide nothing: newer records of every model
 * have them, because they are defaults of TransformerConfig.
 */
export function isMegatronConfig(config: Config): boolean {
  if (config.model_type !== undefined) return false;
  const pattern = config.hybrid_layer_pattern ?? config.hybrid_override_pattern;
  if (typeof pattern === "string") return pattern.includes("M") || !hasRotaryPositions(config);
  const names = ["_target_", "target", "spec", "mamba_stack_spec", "hybrid_stack_spec"].map(
    (key) => config[key],
  );
  return (
    Object.keys(classSettings(config._target_)).length > 0 ||
    names.some((name) => /mamba|hybrid|nemotron_?h(?!eterogeneous)/i.test(canonicalJson(name ?? null))) ||
    config.is_hybrid_model === true ||
    "mamba_ssm_ngroups" in config // a key of NeMo 1's Mamba model alone
  );
}

/** Megatron's models have no rotary positions unless the record asks for them; NeMo 2's classes of dense models ask by default. */
function hasRotaryPositions({ position_embedding_type: type, use_rotary_position_embeddings: use }: Config) {
  return type === "rope" || type === "yarn" || use === true;
}

/**
 * The settings of a record of any of these programs. A value comes from the record itself, else from its class, else from
 * a similar model, else from the tensors.
 *
 * @throws CONFIG_INVALID, UNSUPPORTED; both name the key
 */
export function settingsFrom(config: Config, facts: ObservedFacts): ParsedConfig {
  const ofClass = classSettings(config._target_);
  const notes: string[] = [];
  const stacks = patternsIn(config, ofClass, facts, notes);
  const letters = stacks.pattern + (stacks.mtpPattern ?? "");
  const own: Record<string, string | number | boolean> = {};
  refuseOtherValues(config, FIXED_KEYS, placesOf(letters, stacks.mtpSteps ?? 0));
  const fields = FIELDS.filter(({ on }) => on === undefined || letters.includes(on));
  for (const field of fields) {
    const { name, value } = readField(config, field);
    if (value === undefined) {
      refuseDefault(config, field, name);
      continue;
    }
    const setting = field.value.read(value);
    if (setting === undefined && field.does !== undefined)
      throw unsupportedKeyError(
        `${name} is ${canonicalJson(value)}: it ${field.does}`,
        name,
        field.otherwise,
        {},
      );
    if (setting === undefined)
      invalid(`${name} is ${JSON.stringify(value)}, expected ${field.value.expected}`);
    // in the table every setting is a number or a boolean
    if (field.setting !== undefined) own[field.setting] = setting as number | boolean;
  }
  if (config.group_query_attention === false && own.heads !== undefined) own.kvHeads = own.heads;

  const known: Settings = { ...facts.like, ...ofClass, ...own };
  const sizes = readSizes(facts, known);
  const rows = sizes.rows?.value;
  const vocab = vocabularyIn(config) ?? facts.vocab ?? Number(facts.like?.vocab ?? vocabFrom(known, rows));
  const settings: Record<string, Settings[string]> = { ...stacks, vocab, dtMin: 0, dtMax: "Infinity" };
  for (const field of fields) {
    const { setting, absent } = field;
    if (setting === undefined || setting === "vocab" || PASSTHROUGH.includes(setting)) continue;
    settings[setting] =
      known[setting] ?? absent ?? inferValue(field, sizes, { ...known, ...settings }, notes);
  }
  if (letters.includes("M")) settings.convKernel = sizes.convKernel?.value ?? CONV_KERNEL;
  if (letters.includes("E")) settings.routeNormalise = normalizesScores(settings);
  refuseExcess(settings);
  if (letters.includes("M") && settings.eps !== MIXER_EPSILON) settings.mixerEps = MIXER_EPSILON;
  if (letters.includes("M")) refuseUneven(settings, "mambaHeads", "groups");
  if (letters.includes("*")) refuseUneven(settings, "heads", "kvHeads");
  if (
    vocab === rows &&
    [vocabularyIn(config), facts.vocab, facts.like?.vocab].every((value) => value === undefined)
  ) {
    notes.push(
      `the true size of the vocabulary is not known: all ${rows} rows are kept, padding included; give the size with \`vocabSize\` or \`like\``,
    );
  }
  const passthrough = Object.fromEntries(
    PASSTHROUGH.flatMap((key) => (key in own ? [[key, own[key]!]] : [])),
  );
  return { settings, passthrough: passthrough as ParsedConfig["passthrough"], notes };
}

/** The true size of the vocabulary, if the record has it: NeMo 1 stored the padded number of rows under the same key. */
export function vocabularyIn(config: Config): number | undefined {
  return hasTrueVocab(config) && typeof config.vocab_size === "number" ? config.vocab_size : undefined;
}

function hasTrueVocab(config: Config): boolean {
  return typeof config.target !== "string" && config.nemo_version === undefined;
}

/** A known vocabulary is used if it is not larger than the stored rows, which may be padded; otherwise the rows. */
function vocabFrom(known: Settings, rows: Size["value"] | undefined): number {
  const vocab = Number(known.vocab ?? rows ?? 0);
  if (vocab > 0 && (rows === undefined || vocab <= Number(rows))) return vocab;
  return rows === undefined ? invalid("vocab_size is missing") : Number(rows);
}

/** A record that has experts but not this key means Megatron's default. @throws UNSUPPORTED if that is another function */
function refuseDefault(config: Config, { silent, does, otherwise }: Field, name: string): void {
  const experts = FIELDS.find(({ setting }) => setting === "experts")!;
  if (silent === undefined || readField(config, experts).value === undefined) return;
  throw unsupportedKeyError(
    `${name} is absent, which means ${canonicalJson(silent)}: it ${does}`,
    name,
    otherwise,
    {},
  );
}

function readField(config: Config, field: Field): { name: string; value: unknown } {
  const names = namesOf(field);
  const name = names.find((key) => config[key] !== undefined && config[key] !== null) ?? names[0]!;
  return { name, value: config[name] ?? undefined };
}

/** The value that the shapes of tensors show; without such tensors the value that Megatron would compute. A note if the two differ. */
function inferValue(
  field: Field,
  sizes: Readonly<Record<string, Size>>,
  settings: Settings,
  notes: string[],
): number | string {
  const name = namesOf(field)[0]!;
  const size = sizes[field.setting!];
  const derived = field.derived?.(settings);
  if (size === undefined) return derived || invalid(`${name} is missing, and no tensor shows it`);
  if (size.value !== derived)
    notes.push(`${name} is not in the config; ${size.from} shows that it is ${size.value}`);
  return size.value;
}

interface Patterns {
  readonly pattern: string;
  readonly mtpPattern?: string;
  readonly mtpSteps?: number;
}

/** The layer patterns. Newer patterns mark pipeline stages with `|` and each prediction step with `/`. */
function patternsIn(config: Config, ofClass: Settings, facts: ObservedFacts, notes: string[]): Patterns {
  const written =
    config.hybrid_layer_pattern ?? config.hybrid_override_pattern ?? ofClass.pattern ?? facts.like?.pattern;
  if (written !== undefined && written !== null && typeof written !== "string")
    invalid("the layer pattern is not a text");
  const shown = readSizes(facts, {}).pattern;
  if (typeof written !== "string" && shown === undefined)
    invalid("the config has no layer pattern, and no tensor shows one");
  if (typeof written !== "string")
    notes.push(`the layer pattern is not in the config; ${shown!.from} show that it is ${shown!.value}`);
  const [main, ...steps] = String(written ?? shown!.value)
    .replaceAll("|", "")
    .split("/") as [string, ...string[]];
  const unknown = [...main, ...steps.join("")].find((letter) => !Object.hasOwn(LETTERS, letter));
  if (unknown !== undefined) invalid(`the layer pattern has ${JSON.stringify(unknown)}, not one of M * - E`);
  const layers = config.num_layers;
  if (typeof layers === "number" && layers !== main.length) {
    invalid(`num_layers is ${layers}, but the pattern ${main} has ${main.length} layers`);
  }
  const stepCount = Number(config.mtp_num_layers ?? steps.length);
  if (steps.length > 0 && (stepCount !== steps.length || steps.some((step) => step !== steps[0]))) {
    const message = `the layer pattern has ${steps.length} prediction steps (${steps.join(", ")}), expected ${stepCount} equal steps`;
    throw new IsologitError("UNSUPPORTED", message);
  }
  if (stepCount === 0) return { pattern: main };
  const mtpPattern = steps[0] ?? config.mtp_hybrid_override_pattern ?? facts.like?.mtpPattern;
  if (typeof mtpPattern !== "string" || mtpPattern === "") {
    invalid("mtp_num_layers is set, but mtp_hybrid_override_pattern is missing");
  }
  return { pattern: main, mtpPattern, mtpSteps: stepCount };
}

/** Heads must divide evenly among groups. */
function refuseUneven(settings: Settings, heads: string, groups: string): void {
  const [many, few] = [Number(settings[heads]), Number(settings[groups])];
  if (many % few !== 0) invalid(`${many} ${heads} cannot be divided among ${few} ${groups}`);
}

function invalid(message: string): never {
  throw new IsologitError(
    "CONFIG_INVALID",
    message,
    {},
    { next: "compare the config with the one of the training run" },
  );
}
