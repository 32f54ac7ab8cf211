/** What engines need beside the weights to serve text, for a Hugging Face folder whose config is new. */
import { isTokenizerModel } from "../../../formats/tokenizer-files.ts";
import type { Checkpoint } from "../../core/checkpoint.ts";
import type { Config } from "../../families/structure.ts";
import { SPECIAL_TOKENS, type SpecialIds, specialIds } from "../../tokenizer/special-tokens.ts";
import { readSideFile, type SideFileMap, textFile } from "./config-file.ts";

const GENERATION = "generation_config.json";

/**
 * Adds `generation_config.json` where the special tokens are known.
 *
 * @returns the config with the ids of those tokens, and a warning if the folder lacks what an engine needs to serve text
 */
export async function withGeneration(
  files: SideFileMap,
  source: Checkpoint,
  config: Config,
): Promise<{ readonly config: Config; readonly warnings: readonly string[] }> {
  const read = async (path: string) => {
    const file = files.get(path);
    return file === undefined ? null : await readSideFile(source, file);
  };
  const ids = await specialIds(read);
  const keys = Object.fromEntries(
    SPECIAL_TOKENS.flatMap((name) => (name in ids ? [[`${name}_token_id`, ids[name]!]] : [])),
  );
  if (ids.eos !== undefined && !files.has(GENERATION))
    files.set(GENERATION, textFile(GENERATION, `${JSON.stringify(keys, null, 2)}\n`));
  const entries = Object.entries({ ...config, ...keys }).sort(([a], [b]) => (a < b ? -1 : 1));
  return { config: Object.fromEntries(entries), warnings: await missing(files, ids, read) };
}

/** What a server of text needs and the folder lacks. */
async function missing(
  files: SideFileMap,
  ids: SpecialIds,
  read: (path: string) => Promise<Uint8Array | null>,
): Promise<readonly string[]> {
  const hasTokenizer = [...files.keys()].some(isTokenizerModel);
  const config = new TextDecoder().decode((await read("tokenizer_config.json")) ?? new Uint8Array());
  const hasTemplate = files.has("chat_template.jinja") || config.includes('"chat_template"');
  const lacking = [
    ...(hasTokenizer ? [] : ["a tokenizer"]),
    ...(ids.eos !== undefined ? [] : ["the id of the token that ends a text"]),
    ...(hasTemplate ? [] : ["a chat template"]),
  ];
  if (lacking.length === 0) return [];
  const effect =
    lacking.length === 1 && !hasTemplate
      ? "it can be served for completions, not for chats"
      : "it cannot be served as it stands";
  return [
    `the folder lacks ${lacking.join(", ")}, which the source does not have: ${effect}; \`like\` takes them from another checkpoint`,
  ];
}
