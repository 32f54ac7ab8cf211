/**
 * What a record of Megatron's GPTModel says, whichever software wrote it: `config` of NeMo 2's model.yaml, `model` of
 * Megatron-Bridge's run_config.yaml, the arguments of Megatron-LM, model_config.yaml of NeMo 1. Dense models of any family and
 * models with a softmax router have such records.
 *
 * @see megatron/core/models/gpt/gpt_model.py, megatron/core/transformer/transformer_config.py
 */
import { canonicalJson } from "../../../core/hash.ts";
import type { ObservedFacts } from "../../dialect.ts";
import type { Config } from "../../structure.ts";
import { unsupportedKeyError } from "../config-keys.ts";
import { refuseExcess } from "../limits.ts";
import type { RotarySettings } from "../rotary.ts";
import { invalidRecordError } from "./errors.ts";
import { GptRecord } from "./record.ts";
import { readGptRotary } from "./rotary.ts";

/** A model as such a record describes it. */
export interface GptModel {
  readonly layers: number;
  readonly hidden: number;
  readonly vocab: number;
  readonly ffn: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly eps: number;
  /** tokens that attention sees, with itself; undefined: all */
  readonly window: number | undefined;
  /** biases of queries, keys and values */
  readonly qkvBias: boolean;
  /** biases of attention's output and of both MLP matrices */
  readonly linearBias: boolean;
  readonly qkNorm: boolean;
  /** the token table is the head */
  readonly tied: boolean;
  readonly rotary: RotarySettings;
  readonly norm: "RMSNorm" | "LayerNorm1p";
  readonly activation: "swiglu" | "squared-relu";
  readonly moe: GptMoe | undefined;
  readonly maxPositions: number | undefined;
}

/** Experts with a softmax router. */
interface GptMoe {
  readonly experts: number;
  readonly topK: number;
  readonly ffn: number;
  /** softmax over all experts before the choice; else over the chosen ones */
  readonly preSoftmax: boolean;
  /** for each layer whether it has experts */
  readonly layers: readonly boolean[];
}

/**
 * Classes of records whose model is GPTModel as it stands, or the hybrid model. Classes of other models have the same keys and
 * compute something else: Falcon-H1, Gemma, GLM, models of images and sound.
 */
const GPT_CLASS = /(^|\.)(GPT|Hybrid|Mamba)ModelProvider$|llama|qwen(2|25|3)(?!\d)|mistral|mixtral|nemotron/i;
const OTHER_CLASS = /VL|Omni|Audio|ASR|Diffusion|Heterogeneous|Llava|Ministral/;

function isGptClass(target: unknown): boolean {
  const name = String(target);
  return GPT_CLASS.test(name) && !OTHER_CLASS.test(name.slice(name.lastIndexOf(".") + 1));
}

/** Norm, activation and experts of a GPTModel with rotary positions; null for the record of another model. */
function gptKind(config: Config): (Pick<GptModel, "norm" | "activation"> & { moe: boolean }) | null {
  if (config.model_type !== undefined) return null;
  const record = new GptRecord(config);
  if (config._target_ !== undefined && !isGptClass(config._target_)) return null;
  const pattern = patternIn(record);
  if (pattern !== "" && !/^(\*[-E])+$/.test(pattern)) return null;
  if (record.value("num_attention_heads") === undefined) return null;
  const positions = record.value("position_embedding_type");
  if (positions !== "rope" && positions !== "yarn" && !record.flag("use_rotary_position_embeddings"))
    return null;
  const norm = normOf(record);
  const activation = activationOf(record);
  if (norm === null || activation === null) return null;
  return { norm, activation, moe: record.number("num_moe_experts", "num_experts") !== undefined };
}

/** Whether a record describes such a GPTModel with rotary positions. */
export function isGpt(config: Config, wanted: NonNullable<ReturnType<typeof gptKind>>): boolean {
  return canonicalJson(gptKind(config)) === canonicalJson(wanted);
}

/** The pattern of a hybrid model without its pipeline cuts; "" for GPTModel. */
const patternIn = (record: GptRecord): string =>
  String(record.value("hybrid_layer_pattern", "hybrid_override_pattern") ?? "").replaceAll("|", "");

/** Megatron's hybrid model gives each attention and each MLP a layer of its own. */
export const isHybridForm = (config: Config): boolean => patternIn(new GptRecord(config)) !== "";

function normOf(record: GptRecord): GptModel["norm"] | null {
  const name = String(record.value("normalization") ?? "LayerNorm").toLowerCase();
  if (name === "rmsnorm" && !record.flag("layernorm_zero_centered_gamma", "apply_layernorm_1p"))
    return "RMSNorm";
  const isCentred = record.flag("layernorm_zero_centered_gamma", "apply_layernorm_1p");
  return name === "layernorm1p" || (name === "layernorm" && isCentred) ? "LayerNorm1p" : null;
}

function activationOf(record: GptRecord): GptModel["activation"] | null {
  const name = record.name("activation_func", "activation");
  if (record.flag("swiglu") || /swiglu/.test(name)) return "swiglu";
  if (record.flag("gated_linear_unit")) return /silu|swish/.test(name) ? "swiglu" : null;
  return record.flag("squared_relu") || /squared[-_]relu/.test(name) ? "squared-relu" : null;
}

/**
 * Reads a record that `gptKind` knows.
 *
 * @returns the model, and notes on values that were derived
 * @throws CONFIG_INVALID, UNSUPPORTED; both name the key
 */
export function readGpt(config: Config, facts: ObservedFacts): { model: GptModel; notes: readonly string[] } {
  const record = new GptRecord(config);
  const { norm, activation } = gptKind(config)!; // only such records are read
  const [heads, hidden] = [record.count("num_attention_heads"), record.count("hidden_size")];
  // without grouped queries Megatron-LM's argument num_query_groups is 1 and means nothing
  const groups =
    record.config.group_query_attention === false ? undefined : record.countOr("num_query_groups");
  const kvHeads = groups ?? heads;
  const headDim = record.countOr("kv_channels") ?? hidden / heads;
  if (heads % kvHeads !== 0 || !Number.isInteger(headDim))
    throw invalidRecordError(
      `${heads} heads cannot be divided among ${kvHeads} groups, or ${hidden} among heads`,
    );
  const pattern = patternIn(record);
  const layers = pattern === "" ? record.count("num_layers") : pattern.length / 2;
  refuseExcess(2 * layers, layers * (record.countOr("num_moe_experts", "num_experts") ?? 0));
  const notes: string[] = [];
  const model: GptModel = {
    layers,
    hidden,
    vocab: vocabularyOf(config, facts, notes),
    ffn: record.count("ffn_hidden_size"),
    heads,
    kvHeads,
    headDim,
    eps: record.need("layernorm_epsilon", "norm_epsilon"),
    window: windowOf(record),
    qkvBias: record.flag("add_qkv_bias", "qkv_bias") || record.flag("add_bias_linear", "bias"),
    linearBias: record.flag("add_bias_linear", "bias"),
    qkNorm: record.flag("qk_layernorm"),
    tied: tiedIn(record, facts),
    rotary: readGptRotary(record, headDim),
    norm,
    activation,
    moe: moeOf(record, layers, pattern),
    maxPositions: record.countOr("max_position_embeddings", "seq_length", "encoder_seq_length"),
  };
  return { model, notes };
}

/** The weights decide: a class of NeMo 2 may say that a model is not tied, although it has no head of its own. */
function tiedIn(record: GptRecord, { tensors }: ObservedFacts): boolean {
  const untied = record.value("untie_embeddings_and_output_weights");
  const tied = typeof untied === "boolean" ? !untied : record.flag("share_embeddings_and_output_weights");
  return tied || (tensors.length > 0 && !tensors.some(({ name }) => name === "output_layer.weight"));
}

/** Megatron's `[a, 0]` lets a token see `a` earlier tokens; NeMo puts the width of the window itself there. */
function windowOf(record: GptRecord): number | undefined {
  const size = record.value("window_size");
  if (size === undefined) return undefined;
  const [back, ahead] = Array.isArray(size) ? size : [];
  if (back === -1) return undefined;
  if (!(Number.isSafeInteger(back) && back >= 0 && (ahead === 0 || ahead === -1)))
    throw unsupportedKeyError(
      `window_size is ${canonicalJson(size)}: it lets tokens see others`,
      "window_size",
      null,
      {},
    );
  return record.isNemo ? back : back + 1;
}

function moeOf(record: GptRecord, layers: number, pattern: string): GptMoe | undefined {
  const experts = record.countOr("num_moe_experts", "num_experts");
  if (experts === undefined) return undefined;
  return {
    experts,
    topK: record.count("moe_router_topk"),
    ffn: record.countOr("moe_ffn_hidden_size") ?? record.count("ffn_hidden_size"),
    preSoftmax: record.flag("moe_router_pre_softmax"),
    layers: moeLayers(record.value("moe_layer_freq") ?? 1, layers, pattern),
  };
}

/** Every n-th layer from the first on, or a list of 0 and 1, which a text may hold; a hybrid pattern says it with letters. */
function moeLayers(frequency: unknown, layers: number, pattern: string): readonly boolean[] {
  if (pattern !== "") return Array.from({ length: layers }, (_, i) => pattern[2 * i + 1] === "E");
  const list = typeof frequency === "string" ? listIn(frequency, layers) : frequency;
  if (Number.isSafeInteger(list) && Number(list) > 0)
    return Array.from({ length: layers }, (_, i) => i % Number(list) === 0);
  if (Array.isArray(list) && list.length === layers && list.every((one) => one === 0 || one === 1))
    return list.map((one) => one === 1);
  throw invalidRecordError(
    `moe_layer_freq is ${canonicalJson(frequency)}, expected a number or ${layers} entries of 0 or 1`,
  );
}

/** `[0, 1]`, or `([0] * 3 + [1] * 24)` as Megatron-LM's command line has it; null for any other text. */
function listIn(text: string, length: number): readonly number[] | null {
  const list: number[] = [];
  for (const term of text.replace(/[()\s]/g, "").split("+")) {
    const [, entries, times = "1"] = /^\[([01](?:,[01])*)\](?:\*(\d{1,4}))?$/.exec(term) ?? [];
    if (entries === undefined) return null;
    for (let i = 0; i < Number(times); i++) list.push(...entries.split(",").map(Number));
    if (list.length > length) return null;
  }
  return list;
}

/** The true size of the vocabulary, if the record has it: NeMo 1 stored the padded number of rows under the same key. */
export function vocabularyIn(config: Config): number | undefined {
  const isNemo1 = typeof config.target === "string" || config.nemo_version !== undefined;
  return !isNemo1 && typeof config.vocab_size === "number" ? config.vocab_size : undefined;
}

/**
 * A known vocabulary is used if it is not larger than the stored rows, which may be padded; otherwise the rows.
 *
 * @param notes gets a note if the true size is not known
 * @throws CONFIG_INVALID where neither config nor tensors show a size
 */
export function vocabularyOf(config: Config, facts: ObservedFacts, notes: string[]): number {
  const table = facts.tensors.find(({ name }) => name === "embedding.word_embeddings.weight");
  const parts = facts.tensors.reduce((most, { rank }) => Math.max(most, (rank?.tp ?? 0) + 1), 1);
  const rows = table === undefined ? undefined : table.shape[0]! * parts;
  const known = vocabularyIn(config) ?? facts.vocab ?? (facts.like?.vocab as number | undefined);
  if (known !== undefined && (rows === undefined || known <= rows)) return known;
  const padded = rows ?? config.padded_vocab_size;
  if (typeof padded !== "number") throw invalidRecordError("vocab_size is missing");
  notes.push(
    `the true size of the vocabulary is not known: all ${padded} rows are kept, padding included; give the size with \`vocabSize\` or \`like\``,
  );
  return padded;
}
