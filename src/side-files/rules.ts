/**
 * The effect of a difference in a side file on the verdict, as a table. docs/verification.md shows the same table, and a
 * test compares them. Engines are programs that load a folder, such as Transformers and vLLM.
 */
import { difference, type Finding, type FindingLocation, remark } from "../core/finding.ts";

/**
 * `different`: the verdict is different. `difference`: a finding; with `strict` the verdict is different. `remark`: a
 * finding without effect on the verdict. `nothing`: not reported.
 */
export type FileOutcome = "different" | "difference" | "remark" | "nothing";

interface SideFileKind {
  readonly kind: string;
  /** names as the documentation writes them */
  readonly files: string;
  readonly matches: RegExp;
  /** both checkpoints have the file, with different meanings */
  readonly differs: FileOutcome;
  /** only the first checkpoint has the file */
  readonly missing: FileOutcome;
  /** only the second checkpoint has the file */
  readonly added: FileOutcome;
  /** the file did not exist when the checkpoint was certified */
  readonly uncertified: FileOutcome;
  readonly why: string;
}

const always = (outcome: FileOutcome) => ({ differs: outcome, missing: outcome, added: outcome });

const RIVAL = "another set of the weights";

/** The first row that matches a path applies; the last row matches every path. */
export const SIDE_FILES: readonly SideFileKind[] = [
  {
    kind: "notes of an operating system",
    files: "`._*`, `.DS_Store`",
    matches: /(^|\/)(\._[^/]*|\.DS_Store)$/,
    ...{ differs: "nothing", missing: "nothing", added: "remark", uncertified: "remark" },
    why: "no software for models reads these files",
  },
  {
    kind: "index of other weights",
    files: "`model.safetensors.index.json` beside `model.safetensors` that names other files",
    matches: /^model\.safetensors\.index\.json$/,
    ...{ differs: "different", missing: "nothing", added: "different", uncertified: "different" },
    why: "vLLM loads the files that the index names, and Transformers the single file",
  },
  {
    kind: RIVAL,
    files: "`.safetensors` that hold tensors of the model and are not its weights, `model*.safetensors`",
    matches: /^model[^/]*\.safetensors$/,
    ...{ differs: "different", missing: "nothing", added: "different", uncertified: "different" },
    why: "Transformers prefers `model.safetensors`; vLLM without an index loads every file",
  },
  {
    kind: "adapter",
    files: "`adapter_config.json`, `adapter_model.*`",
    matches: /^adapter_(config\.json|model\.[^/]+)$/,
    ...{ differs: "different", missing: "difference", added: "different", uncertified: "different" },
    why: "Transformers with PEFT loads the adapter into the model automatically",
  },
  {
    kind: "training state",
    files:
      "`optimizer*`, `scheduler*`, `rng_state*`, `training_args.bin`, `trainer_state.json`, `global_step*/`, `checkpoint-*/`",
    matches:
      /^(.*\/)?((optimizer|scheduler|rng_state|training_args|scaler|random_states)[^/]*\.(pt|pth|bin|pkl|safetensors)|trainer_state\.json)$|^(global_step\d+|checkpoint-\d+)\//,
    ...{ differs: "nothing", missing: "nothing", added: "remark", uncertified: "remark" },
    why: "not part of a model; not read",
  },
  {
    kind: "weights for other loaders",
    files: "`.bin`, `.pt`, `.pth`, `.ckpt`, `.gguf`, `.h5`, `.msgpack`, `.onnx`, and other indexes",
    matches: /\.(bin|pt|pth|ckpt|gguf|h5|msgpack|onnx)$|\.(safetensors|bin|h5|msgpack)\.index\.json$/i,
    ...{ differs: "difference", missing: "nothing", added: "difference", uncertified: "different" },
    why: "some loaders read these formats; the weights are not compared, and a conversion leaves them out",
  },
  {
    kind: "other tensors",
    files: "any other `.safetensors`",
    matches: /\.safetensors$/,
    ...always("difference"),
    uncertified: "different",
    why: "a conversion copies these files; a loader reads them on request",
  },
  {
    kind: "tokenizer",
    files: "`tokenizer.json`, `tekken.json`, `*.model`, `*.tiktoken`",
    matches: /^(tokenizer\.json|tekken\.json|[^/]+\.model|[^/]+\.tiktoken)$/,
    ...{ differs: "different", missing: "difference", added: "difference", uncertified: "different" },
    why: "decides which token ids the model reads; without a tokenizer the weights are still the same model",
  },
  {
    kind: "settings and parts of a tokenizer",
    files:
      "`tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `vocab.json`, `vocab.txt`, `merges.txt`",
    matches: /^(tokenizer_config|special_tokens_map|added_tokens|vocab)\.json$|^(vocab|merges)\.txt$/,
    ...always("difference"),
    uncertified: "different",
    why: "change the class, special tokens or text before a prompt; the vocabulary is in `tokenizer.json`",
  },
  {
    kind: "chat template",
    files: "`chat_template.jinja`, `chat_template.json`, `additional_chat_templates/*`",
    matches: /^(chat_template\.(jinja|json)|additional_chat_templates\/.+)$/,
    ...always("difference"),
    uncertified: "different",
    why: "changes the prompt of a chat, and is often changed on purpose",
  },
  {
    kind: "generation settings",
    files: "`generation_config.json`",
    matches: /^generation_config\.json$/,
    ...always("difference"),
    uncertified: "different",
    why: "changes when and how tokens are drawn, not the logits",
  },
  {
    kind: "quantisation settings",
    files: "`hf_quant_config.json`, `quant_config.json`, `quantize_config.json`",
    matches: /^(hf_quant_config|quant_config|quantize_config)\.json$/,
    ...always("difference"),
    uncertified: "different",
    why: "engines read them beside config.json; config.json and the first file are also compared with the weights",
  },
  {
    kind: "remote code",
    files: "`*.py`",
    matches: /\.py$/,
    ...always("difference"),
    uncertified: "different",
    why: "with `trust_remote_code` the library runs this code in place of its own; Isologit neither runs nor reads it",
  },
  {
    kind: "documentation",
    files: "`README*`, `LICENSE*`, `NOTICE*`, `*.md`, `*.pdf`, images, `.git*`",
    matches:
      /(^|\/)(README|LICEN[CS]E|NOTICE|COPYING|CITATION|CHANGELOG)[^/]*$|\.(md|rst|pdf|png|jpe?g|gif|webp|svg)$|(^|\/)\.git(attributes|ignore)$/i,
    ...always("remark"),
    uncertified: "remark",
    why: "no software reads these files",
  },
  {
    kind: "any other file",
    files: "",
    matches: /^/,
    ...always("difference"),
    uncertified: "difference",
    why: "the software that reads the file is not known",
  },
];

/** @param rival the file holds tensors of the model, and loaders may take them instead of the weights */
export function sideFileKind(path: string, rival = false): SideFileKind {
  return SIDE_FILES.find(({ kind, matches }) => (rival ? kind === RIVAL : matches.test(path)))!;
}

/** The effect of a difference in keys of config.json. Keys on which the forward pass depends are compared as settings. */
interface ConfigKeys {
  readonly keys: string;
  readonly matches: RegExp;
  readonly differs: FileOutcome;
  /** the same if an element was recast */
  readonly recast: FileOutcome;
  readonly why: string;
}

const SETTINGS = "any key of a setting that has another spelling or is left to its default";

/** As `SIDE_FILES`, by key. */
export const CONFIG_KEYS: readonly ConfigKeys[] = [
  {
    keys: SETTINGS,
    matches: /(?!)/,
    ...{ differs: "remark", recast: "remark" },
    why: "the value was compared as a setting",
  },
  {
    keys: "`quantization_config`, `torch_dtype`, `dtype`",
    matches: /^(quantization_config|torch_dtype|dtype)$/,
    ...{ differs: "difference", recast: "nothing" },
    why: "a recast has to change them; they are also compared with the weights",
  },
  {
    keys: "`transformers_version`, `_name_or_path`, `name_or_path`, `_commit_hash`",
    matches: /^(transformers_version|_?name_or_path|_commit_hash)$/,
    ...{ differs: "remark", recast: "remark" },
    why: "name the software or the source of the file",
  },
  {
    keys: "`expand`, `num_query_groups`, `time_step_rank`, `initializer_range`, `rescale_prenorm_residual`, `*_dropout`, `gradient_checkpointing`",
    matches:
      /^((mamba_)?expand|num_query_groups|time_step_rank|initializer_range|rescale_prenorm_residual|[a-z]+_dropout|gradient_checkpointing)$/,
    ...{ differs: "remark", recast: "remark" },
    why: "used only for initialisation and training",
  },
  {
    keys: "any other key",
    matches: /^/,
    ...{ differs: "difference", recast: "difference" },
    why: "token ids, class names, lengths: used outside the forward pass, or by unknown software",
  },
];

/** @param setting the value of the key was compared as a setting, so that only the spelling differs */
export function configKeys(key: string, setting: boolean): ConfigKeys {
  return CONFIG_KEYS.find(({ keys, matches }) => (setting ? keys === SETTINGS : matches.test(key)))!;
}

/** The findings for a difference with this outcome: none or one. `different` gives an error. */
export function withSeverity(
  outcome: FileOutcome,
  rule: string,
  message: string,
  at: FindingLocation,
): readonly Finding[] {
  if (outcome === "nothing") return [];
  if (outcome === "remark") return [remark(rule, message, at)];
  const found = difference(rule, message, at);
  return outcome === "different" ? [{ ...found, severity: "error" }] : [found];
}
