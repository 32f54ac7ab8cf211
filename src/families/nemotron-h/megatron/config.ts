/** Settings from the config records of Megatron and of the software around it. */

import { IsologitError } from "../../../core/errors.ts";
import { canonicalJson } from "../../../core/hash.ts";
import type { ObservedFacts, ParsedConfig } from "../../dialect.ts";
import type { Config, Settings } from "../../structure.ts";
import { placesOf, refuseOtherValues, unsupportedKeyError } from "../config-keys.ts";
import { LETTERS, refuseExcess } from "../settings.ts";
import { classSettings } from "./classes.ts";
import { ASIDES, CONV_KERNEL, FIELDS, type Field, MIXER_EPSILON, namesOf, normalizes } from "./fields.ts";
import { FIXED_KEYS } from "./keys.ts";
import { readSizes, type Size } from "./sizes.ts";

/** A hybrid model, by its pattern, its class, or Mamba's sizes beside a config of NeMo 1. */
export function isMegatronConfig(config: Config): boolean {
  if (config.model_type !== undefined) return false;
  const pattern = config.hybrid_layer_pattern ?? config.hybrid_override_pattern;
  if (typeof pattern === "string" || Object.keys(classSettings(config._target_)).length > 0) return true;
  return ["mamba_ssm_ngroups", "mamba_num_groups", "mamba_state_dim"].some((key) => key in config);
}

/**
 * Settings of a record in any of the spellings. Said outright comes first, then what the record's class sets, then a
 * like model's, then what the tensors show.
 *
 * @throws CONFIG_INVALID naming the key; UNSUPPORTED
 */
export function settingsFrom(config: Config, seen: ObservedFacts): ParsedConfig {
  const ofClass = classSettings(config._target_);
  const notes: string[] = [];
  const stacks = patternsIn(config, ofClass, seen, notes);
  const letters = stacks.pattern + (stacks.mtpPattern ?? "");
  const said: Record<string, string | number | boolean> = {};
  refuseOtherValues(config, FIXED_KEYS, placesOf(letters, stacks.mtpSteps ?? 0));
  const fields = FIELDS.filter(({ on }) => on === undefined || letters.includes(on));
  for (const field of fields) {
    const { name, value } = saidIn(config, field);
    if (value === undefined) {
      refuseSilent(config, field, name);
      continue;
    }
    const parsed = field.value.safeParse(value);
    if (!parsed.success && field.does !== undefined)
      throw unsupportedKeyError(
        `${name} is ${canonicalJson(value)}: it ${field.does}`,
        name,
        field.otherwise,
        {},
      );
    if (!parsed.success) invalid(`${name} is ${JSON.stringify(value)}; ${parsed.error.issues[0]!.message}`);
    // the table gives every setting a number or a boolean
    if (field.ours !== undefined) said[field.ours] = parsed.data as number | boolean;
  }
  if (config.group_query_attention === false && said.heads !== undefined) said.kvHeads = said.heads;

  const told: Settings = { ...seen.like, ...ofClass, ...said };
  const sizes = readSizes(seen, told);
  const rows = sizes.rows?.value;
  const vocab = vocabularyIn(config) ?? seen.vocab ?? Number(seen.like?.vocab ?? vocabFrom(told, rows));
  const settings: Record<string, Settings[string]> = { ...stacks, vocab, dtMin: 0, dtMax: "Infinity" };
  for (const field of fields) {
    const { ours, absent } = field;
    if (ours === undefined || ours === "vocab" || ASIDES.includes(ours)) continue;
    settings[ours] = told[ours] ?? absent ?? inferred(field, sizes, { ...told, ...settings }, notes);
  }
  if (letters.includes("M")) settings.convKernel = sizes.convKernel?.value ?? CONV_KERNEL;
  if (letters.includes("E")) settings.routeNormalise = normalizes(settings);
  refuseExcess(settings);
  if (letters.includes("M") && settings.eps !== MIXER_EPSILON) settings.mixerEps = MIXER_EPSILON;
  if (letters.includes("M")) refuseUneven(settings, "mambaHeads", "groups");
  if (letters.includes("*")) refuseUneven(settings, "heads", "kvHeads");
  if (
    vocab === rows &&
    [vocabularyIn(config), seen.vocab, seen.like?.vocab].every((one) => one === undefined)
  ) {
    notes.push(
      `the true size of the vocabulary is not known: all ${rows} rows are kept, padding included; give it with --vocab-size or --like`,
    );
  }
  const asides = Object.fromEntries(ASIDES.flatMap((key) => (key in said ? [[key, said[key]!]] : [])));
  return { settings, passthrough: asides as ParsedConfig["passthrough"], notes };
}

/** The vocabulary that a record is sure of: NeMo 1 wrote the padded rows under the same name. */
export function vocabularyIn(config: Config): number | undefined {
  return isSure(config) && typeof config.vocab_size === "number" ? config.vocab_size : undefined;
}

function isSure(config: Config): boolean {
  return typeof config.target !== "string" && config.nemo_version === undefined;
}

/** A class's default is right where it is the stored rows, or these are its padding. */
function vocabFrom(told: Settings, rows: Size["value"] | undefined): number {
  const vocab = Number(told.vocab ?? rows ?? 0);
  if (vocab > 0 && (rows === undefined || vocab <= Number(rows))) return vocab;
  return rows === undefined ? invalid("vocab_size is missing") : Number(rows);
}

/** A record that says its experts and not how they are chosen means Megatron's default. @throws UNSUPPORTED */
function refuseSilent(config: Config, { silent, does, otherwise }: Field, name: string): void {
  const experts = FIELDS.find(({ ours }) => ours === "experts")!;
  if (silent === undefined || saidIn(config, experts).value === undefined) return;
  throw unsupportedKeyError(
    `${name} is absent, which means ${canonicalJson(silent)}: it ${does}`,
    name,
    otherwise,
    {},
  );
}

function saidIn(config: Config, field: Field): { name: string; value: unknown } {
  const names = namesOf(field);
  const name = names.find((one) => config[one] !== undefined && config[one] !== null) ?? names[0]!;
  return { name, value: config[name] ?? undefined };
}

/** By the tensors; in words, where that is not what the software itself would derive. */
function inferred(
  field: Field,
  sizes: Readonly<Record<string, Size>>,
  settings: Settings,
  notes: string[],
): number | string {
  const name = namesOf(field)[0]!;
  const size = sizes[field.ours!];
  const derived = field.derived?.(settings);
  if (size === undefined) return derived || invalid(`${name} is missing, and no tensor shows it`);
  if (size.value !== derived) notes.push(`${name} is not in the config; it is ${size.value} by ${size.from}`);
  return size.value;
}

interface Patterns {
  readonly pattern: string;
  readonly mtpPattern?: string;
  readonly mtpSteps?: number;
}

/** Newer patterns mark pipeline cuts with `|` and each prediction step with `/`. */
function patternsIn(config: Config, ofClass: Settings, seen: ObservedFacts, notes: string[]): Patterns {
  const written =
    config.hybrid_layer_pattern ?? config.hybrid_override_pattern ?? ofClass.pattern ?? seen.like?.pattern;
  if (written !== undefined && written !== null && typeof written !== "string")
    invalid("the layer pattern is no text");
  const shown = readSizes(seen, {}).pattern;
  if (typeof written !== "string" && shown === undefined)
    invalid("it has no layer pattern, and no tensor shows one");
  if (typeof written !== "string") notes.push(`the layer pattern is ${shown!.value}, by ${shown!.from}`);
  const [main, ...steps] = String(written ?? shown!.value)
    .replaceAll("|", "")
    .split("/") as [string, ...string[]];
  const unknown = [...main, ...steps.join("")].find((letter) => !Object.hasOwn(LETTERS, letter));
  if (unknown !== undefined) invalid(`the layer pattern has ${JSON.stringify(unknown)}, not one of M * - E`);
  const layers = config.num_layers;
  if (typeof layers === "number" && layers !== main.length) {
    invalid(`num_layers is ${layers}, but the pattern ${main} has ${main.length} layers`);
  }
  const told = Number(config.mtp_num_layers ?? steps.length);
  if (steps.length > 0 && (told !== steps.length || steps.some((step) => step !== steps[0]))) {
    const message = `the layer pattern has ${steps.length} prediction steps (${steps.join(", ")}), expected ${told} alike`;
    throw new IsologitError("UNSUPPORTED", message);
  }
  if (told === 0) return { pattern: main };
  const mtpPattern = steps[0] ?? config.mtp_hybrid_override_pattern ?? seen.like?.mtpPattern;
  if (typeof mtpPattern !== "string" || mtpPattern === "") {
    invalid("mtp_num_layers is set, but no mtp_hybrid_override_pattern");
  }
  return { pattern: main, mtpPattern, mtpSteps: told };
}

/** Heads are shared out among groups; a rest would be left over. */
function refuseUneven(settings: Settings, heads: string, groups: string): void {
  const [many, few] = [Number(settings[heads]), Number(settings[groups])];
  if (many % few !== 0) invalid(`${many} ${heads} cannot be shared out among ${few} ${groups}`);
}

function invalid(message: string): never {
  throw new IsologitError(
    "CONFIG_INVALID",
    message,
    {},
    { next: "compare the config with the one it was trained by" },
  );
}
