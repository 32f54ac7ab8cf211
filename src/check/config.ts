/** Compares config.json with the other files of the folder, and finds faults that loaders are known to fail on. */
import { parseHeader } from "../../formats/codec/safetensors.ts";
import { tokensOf } from "../checkpoint/open.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import type { Finding } from "../core/finding.ts";
import { finding, findingOf } from "../core/finding.ts";
import { isJsonObject } from "../core/json.ts";
import type { Sources } from "../core/read.ts";
import { generationOf } from "./serving.ts";

const CONFIG = { file: "config.json" };

export async function checkConfig(checkpoint: Checkpoint, files: Sources): Promise<readonly Finding[]> {
  return [
    ...(await checkVocabulary(checkpoint)),
    ...(await checkTokenIds(checkpoint, files)),
    ...checkCode(checkpoint),
    ...checkSpelling(checkpoint),
    ...(await checkMetadata(checkpoint, files)),
  ];
}

async function checkVocabulary(checkpoint: Checkpoint): Promise<readonly Finding[]> {
  const rows = checkpoint.config.vocab_size;
  try {
    const tokens = await tokensOf(checkpoint);
    if (typeof rows !== "number" || tokens === undefined || tokens <= rows) return [];
    const message = `the token ids go up to ${tokens - 1}, but vocab_size is ${rows}`;
    return [finding("tokenizer-vocabulary", "error", { file: "tokenizer.json" }, message)];
  } catch (error) {
    return [findingOf(error, "tokenizer.json")];
  }
}

const TOKEN_IDS = ["bos_token_id", "eos_token_id", "pad_token_id"] as const;

/** Ids of special tokens. The vocabulary must contain them, and two files must agree on them. */
async function checkTokenIds(checkpoint: Checkpoint, files: Sources): Promise<readonly Finding[]> {
  const { config } = checkpoint;
  const file = "generation_config.json";
  const findings: Finding[] = [];
  let generation: Readonly<Record<string, unknown>> = {};
  try {
    generation = await generationOf(checkpoint, files);
  } catch (error) {
    findings.push(findingOf(error, file));
  }
  for (const [where, values] of [[CONFIG.file, config] as const, [file, generation] as const]) {
    for (const key of TOKEN_IDS) {
      const outside = idsIn(values[key]).find((id) => id < 0 || id >= Number(config.vocab_size));
      if (outside === undefined) continue;
      const message = `${key} is ${outside}; the vocabulary has ids 0 to ${Number(config.vocab_size) - 1}`;
      findings.push(finding("token-id-range", "error", { file: where }, message));
    }
  }
  const [configEnds, generationEnds] = [idsIn(config.eos_token_id), idsIn(generation.eos_token_id)];
  if (
    configEnds.length > 0 &&
    generationEnds.length > 0 &&
    !configEnds.some((id) => generationEnds.includes(id))
  ) {
    const message = `eos_token_id is ${generationEnds.join(", ")} here and ${configEnds.join(", ")} in ${CONFIG.file}`;
    findings.push(finding("eos-disagrees", "warning", { file }, message));
  }
  return findings;
}

function idsIn(value: unknown): readonly number[] {
  return (Array.isArray(value) ? value : [value]).filter((id) => typeof id === "number");
}

/** Code files that `auto_map` names and loaders read beside the config. */
function checkCode({ config, sidecars }: Checkpoint): readonly Finding[] {
  if (!isJsonObject(config.auto_map)) return [];
  const present = new Set(sidecars.map(({ path }) => path));
  const named = Object.values(config.auto_map)
    .flat()
    .filter((name) => typeof name === "string" && !name.includes("--"))
    .map((name) => `${String(name).split(".")[0]}.py`);
  return [...new Set(named)]
    .filter((path) => !present.has(path))
    .map((path) =>
      finding(
        "remote-code-missing",
        "warning",
        { file: path },
        "auto_map names this file, which does not exist; trust_remote_code fails without it",
      ),
    );
}

function checkSpelling({ config, tensors }: Checkpoint): readonly Finding[] {
  const findings: Finding[] = [];
  const singular = tensors.find(({ name }) => name === "backbone.embedding.weight");
  if (singular !== undefined) {
    const at = { file: singular.pieces[0]?.file ?? "", tensor: singular.name };
    const message =
      "published checkpoints use the name backbone.embeddings.weight, and NVIDIA's code reads no other name";
    findings.push(finding("embedding-spelling", "warning", at, message));
  }
  if (config.model_type === undefined) {
    findings.push(
      finding(
        "model-type-missing",
        "error",
        CONFIG,
        "model_type is missing, and loaders choose the model by it",
      ),
    );
  }
  if (config.architectures === undefined) {
    findings.push(
      finding(
        "architectures-missing",
        "warning",
        CONFIG,
        "architectures is missing, and vLLM and SGLang choose the model by it",
      ),
    );
  }
  return findings;
}

/** Transformers before version 5 refuses a weight file without `format` in its metadata. */
async function checkMetadata({ weightFiles }: Checkpoint, files: Sources): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const { path, header } of weightFiles) {
    try {
      const bytes = await files.bytes(header.file, header.offset, header.size);
      if (parseHeader(bytes, path).metadata?.format !== undefined) continue;
    } catch (error) {
      findings.push(findingOf(error, path)); // the header that a packed file stores for this weight file
      continue;
    }
    const message = 'no {"format": "pt"} in __metadata__: older releases of Transformers refuse the file';
    findings.push(finding("metadata-format", "warning", { file: path }, message));
  }
  return findings;
}
