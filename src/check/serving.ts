/** What a server of text needs beside the weights: vLLM, SGLang, TensorRT-LLM and Transformers load it from the same folder. */
import { isTokenizerModel } from "../../formats/tokenizer-files.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { type Finding, finding } from "../core/finding.ts";
import { parseJsonObject } from "../core/json.ts";
import type { Sources } from "../core/read.ts";

const GENERATION = "generation_config.json";
/** Limit of a generation config; real files have a few hundred bytes. */
const MAX_GENERATION_BYTES = 1024 * 1024;

/** The settings in `generation_config.json`; empty without that file. @throws CONFIG_INVALID */
export async function generationOf(
  { sidecars }: Checkpoint,
  files: Sources,
): Promise<Readonly<Record<string, unknown>>> {
  const span = sidecars.find(({ path }) => path === GENERATION)?.span;
  if (span === undefined || span.size > MAX_GENERATION_BYTES) return {};
  const bytes = await files.bytes(span.file, span.offset, span.size);
  return parseJsonObject(bytes, { file: GENERATION, nonFinite: true });
}

/** Notes about what a folder lacks to be served as it stands. */
export async function checkServing(checkpoint: Checkpoint, files: Sources): Promise<readonly Finding[]> {
  const { sidecars, config } = checkpoint;
  const findings: Finding[] = [];
  if (!sidecars.some(({ path }) => isTokenizerModel(path))) {
    const message = "there is no tokenizer: engines can serve token ids only";
    findings.push(finding("serving-tokenizer", "note", { file: "tokenizer.json" }, message));
  }
  const generation = await generationOf(checkpoint, files).catch(
    (): Awaited<ReturnType<typeof generationOf>> => ({}),
  ); // the check of token ids reports it
  if ((config.eos_token_id ?? generation.eos_token_id ?? null) === null) {
    const message = "no file says which token ends a text: engines take the default of the model's class";
    findings.push(finding("serving-eos", "note", { file: GENERATION }, message));
  }
  return findings;
}
