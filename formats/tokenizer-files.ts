/** Files of a tokenizer, which NeMo and Megatron keep in a folder of their own. */
import type { CarriedFiles, Sidecar } from "../src/core/checkpoint.ts";

/** Names by which Hugging Face's and SentencePiece's tokenizers find their parts. */
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

/** What lies in a folder, as side files by the path they have in a Hugging Face folder. */
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
 * What was kept for the way home, of a format that has a folder for its tokenizer: engines read that folder, and a file of a
 * tokenizer that somebody put elsewhere stands in for none that is missing there.
 */
export function dropTokenizerFiles(origin: CarriedFiles | undefined): CarriedFiles | undefined {
  if (origin === undefined) return undefined;
  return { ...origin, sidecars: origin.sidecars.filter(({ path }) => !isTokenizerFile(path)) };
}
