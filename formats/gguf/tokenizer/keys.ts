/**
 * The keys of a tokenizer, from the files of a Hugging Face folder. llama.cpp has byte-level BPE as the model `gpt2` and
 * SentencePiece's BPE as the model `llama`; other tokenizers become `none`: a model then takes numbers of tokens alone.
 */
import { isJsonObject } from "../../../src/core/json.ts";
import type { WrittenKey } from "../../codec/gguf/encode.ts";
import { byteLevelKeys } from "./byte-level.ts";
import { sentencePieceKeys } from "./sentencepiece.ts";
import {
  type FileBytes,
  specialText,
  type TokenizerSource,
  tokenizerSource,
  type WrittenTokenizer,
} from "./source.ts";

interface TokenizerKeys {
  readonly keys: readonly WrittenKey[];
  /** why the file has no tokenizer, or a poorer one; empty if nothing is lost */
  readonly notes: readonly string[];
}

/**
 * @param files side files of the model
 * @param rows  of the token table: llama.cpp wants as many tokens
 * @throws PLAN_IMPOSSIBLE if the tokenizer has more tokens than the table has rows; CONFIG_INVALID and codes of exit status 3
 *   for a damaged file
 */
export function tokenizerKeys(files: FileBytes, rows: number): TokenizerKeys {
  const source = tokenizerSource(files);
  const { model, chatTemplate } = source;
  const isByteLevel = model.type === "BPE" && model.byte_fallback !== true && isJsonObject(model.vocab);
  const written: WrittenTokenizer | { readonly reason: string } = isByteLevel
    ? byteLevelKeys(source, rows)
    : sentencePieceKeys(source, rows);
  if ("reason" in written)
    return {
      keys: [{ key: "tokenizer.ggml.model", type: "string", value: "none" }],
      notes: [`${written.reason}: llama.cpp runs the file with numbers of tokens, not with texts`],
    };
  const { keys, notes, addsBos, idOf } = written;
  const addsEos = addsToken("eos", source, false);
  return {
    keys: [
      ...keys,
      ...specialTokens(source, idOf, rows),
      { key: "tokenizer.ggml.add_bos_token", type: "bool", value: addsToken("bos", source, addsBos) },
      ...(addsEos ? [{ key: "tokenizer.ggml.add_eos_token", type: "bool", value: true } as const] : []),
      ...(chatTemplate === null
        ? []
        : [{ key: "tokenizer.chat_template", type: "string", value: chatTemplate } as const]),
    ],
    notes,
  };
}

/** Names of special tokens in configs, and those of their keys. */
const SPECIAL = [
  ["bos", "bos"],
  ["eos", "eos"],
  ["unk", "unknown"],
  ["pad", "padding"],
] as const;

function specialTokens(
  { settings, config, added }: TokenizerSource,
  idOf: WrittenTokenizer["idOf"],
  rows: number,
): readonly WrittenKey[] {
  return SPECIAL.flatMap(([name, key]): readonly WrittenKey[] => {
    const text = specialText(settings, name);
    const listed = config[`${name}_token_id`];
    const id =
      added.find(({ content }) => content === text)?.id ??
      (typeof listed === "number" ? listed : idOf(name, text));
    const isToken = id !== undefined && Number.isSafeInteger(id) && id >= 0 && id < rows;
    return isToken ? [{ key: `tokenizer.ggml.${key}_token_id`, type: "u32", value: id }] : [];
  });
}

/** Whether a text gets the token of its beginning, or that of its end. */
function addsToken(
  name: "bos" | "eos",
  { tokenizer, settings }: TokenizerSource,
  byDefault: boolean,
): boolean {
  const stated = settings[`add_${name}_token`];
  if (typeof stated === "boolean") return stated;
  if (tokenizer === null) return byDefault;
  const { post_processor: processor } = tokenizer;
  const token = specialText(settings, name);
  const steps: readonly unknown[] =
    isJsonObject(processor) && Array.isArray(processor.processors) ? processor.processors : [processor];
  return steps.some((step) => {
    const parts: readonly unknown[] = isJsonObject(step) && Array.isArray(step.single) ? step.single : [];
    const outer = parts.at(name === "bos" ? 0 : -1);
    return isJsonObject(outer) && isJsonObject(outer.SpecialToken) && outer.SpecialToken.id === token;
  });
}
