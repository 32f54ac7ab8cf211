/** Files of a tokenizer, which NeMo and Megatron store in a separate folder. */
import type { CarriedFiles, Sidecar } from "../src/core/checkpoint.ts";

/** Names of the files that the tokenizers of Hugging Face and SentencePiece load. */
const NAMES = new Set([
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "vocab.json",
  "vocab.txt",
  "merges.txt",
]);
const TEMPLATES = /^additional_chat_templates\/[^/]+\.jinja$/;

export function isTokenizerFile(path: string): boolean {
  return NAMES.has(path) || TEMPLATES.test(path);
}

const MODEL = /^(tokenizer\.json|tokenizer\.model|tekken\.json|vocab\.(json|txt)|[^/]+\.tiktoken)$/;

/** Whether a file holds the tokens of a tokenizer: one of these files is enough to read text. */
export function isTokenizerModel(path: string): boolean {
  return MODEL.test(path);
}

/** The files in a folder as side files, with their paths in a Hugging Face folder. */
export function sidecarsBelow(
  files: readonly { readonly path: string; readonly size: number }[],
  folder: string,
): Sidecar[] {
  return files
    .filter(({ path }) => path.startsWith(folder))
    .map(({ path, size }) => ({
      path: path.slice(folder.length),
      span: { file: path, offset: 0, size },
    }));
}

/**
 * The carried files without those of a tokenizer, for a format with a folder for its tokenizer: engines read only that
 * folder, so a carried file does not replace one that is missing there.
 */
export function dropTokenizerFiles(origin: CarriedFiles | undefined): CarriedFiles | undefined {
  if (origin === undefined) return undefined;
  return { ...origin, sidecars: origin.sidecars.filter(({ path }) => !isTokenizerFile(path)) };
}
