/** The prompts of forward passes that run several: token ids, or a file of texts or ids. */
import { readFile } from "node:fs/promises";
import type { Checkpoint } from "../../core/checkpoint.ts";
import { IsologitError, systemError, withLocation } from "../../core/errors.ts";
import { type Prompt, type PromptOptions, promptOf, promptsOfIds } from "../prompts.ts";

/** Options that choose one prompt or several; each runs from an empty state. */
export interface PromptsOptions extends PromptOptions {
  /** token ids of several prompts; replaces all other options of prompts */
  readonly prompts?: readonly (readonly number[])[];
  /**
   * path of a file of prompts; replaces all other options of prompts: texts for the checkpoint's tokenizer, one a line, JSON
   * lines with a text or ids, or token ids
   */
  readonly promptFile?: string;
}

/**
 * The prompts that the options choose.
 *
 * @throws USAGE for two ways to choose, for no prompt, and as `promptOf`, naming the prompt; as `promptsInFile`
 */
export async function promptsOf(
  options: PromptsOptions,
  model: Checkpoint,
  vocab: number,
): Promise<readonly [Prompt, ...Prompt[]]> {
  const { prompts, promptFile, ...one } = options;
  if (prompts === undefined && promptFile === undefined) return [await promptOf(one, model, vocab)];
  const name = promptFile === undefined ? "prompts" : "promptFile";
  const others = [one.ids, one.prompt, one.tokens, ...(promptFile === undefined ? [] : [prompts])];
  if (others.some((other) => other !== undefined))
    throw new IsologitError("USAGE", `\`${name}\` was given together with \`ids\`, \`prompt\` or \`tokens\``);
  const all =
    promptFile === undefined ? promptsOfIds(prompts!, vocab) : await promptsInFile(promptFile, model, vocab);
  const [first, ...rest] = all;
  if (first === undefined) throw new IsologitError("USAGE", "no prompt was given");
  return [first, ...rest];
}

/** Token ids as `--ids-file` reads them: separated by commas or white space, or as a JSON list. */
const IDS = /^\s*(\[\s*\d+(\s*,\s*\d+)*\s*\]|\d+((\s*,\s*|\s+)\d+)*)\s*$/;

/**
 * Reads a file of prompts: the token ids of one prompt, a JSON list of such lists, JSON lines (a text, a list of ids, or an
 * object with `text`, `prompt`, `input_ids` or `ids`), or a text for the checkpoint's tokenizer, a prompt on each line.
 *
 * @throws NOT_FOUND; USAGE, naming the line, for an id outside the vocabulary, an empty prompt, or a text without a tokenizer
 */
export async function promptsInFile(
  file: string,
  model: Checkpoint,
  vocab: number,
): Promise<readonly Prompt[]> {
  try {
    const text = await readFile(file, "utf8");
    if (text.trim() === "") throw new IsologitError("USAGE", "the file has no prompt");
    if (IDS.test(text)) return [await promptOf({ ids: text.match(/\d+/g)!.map(Number) }, model, vocab)];
    const lines = text
      .split(/\r?\n/)
      .flatMap((line, i) => (line.trim() === "" ? [] : [{ line, number: i + 1 }]));
    const lists = promptLists(text);
    if (lists !== undefined) return promptsOfIds(lists, vocab);
    if (lines.length < 2) return [await promptOf(linePrompt(text) ?? { prompt: text }, model, vocab)];
    const asJson = lines.map(({ line }) => linePrompt(line));
    const isJson = asJson.every((prompt) => prompt !== undefined);
    const prompts: Prompt[] = [];
    for (const [i, { line, number }] of lines.entries())
      prompts.push(await promptOfLine(isJson ? asJson[i]! : { prompt: line }, number, model, vocab));
    return prompts;
  } catch (error) {
    throw withLocation(systemError(error, { file }), { file });
  }
}

/** The prompts of a JSON list of lists, as `--ids-file` reads it; undefined for any other text. */
function promptLists(text: string): readonly (readonly number[])[] | undefined {
  if (!/^\s*\[\s*\[/.test(text)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // a list on each line
  }
}

async function promptOfLine(
  prompt: PromptOptions,
  line: number,
  model: Checkpoint,
  vocab: number,
): Promise<Prompt> {
  try {
    return await promptOf(prompt, model, vocab);
  } catch (error) {
    if (!(error instanceof IsologitError)) throw error;
    const { code, message, at, cause, next } = error;
    throw new IsologitError(code, `line ${line}: ${message}`, at, { cause, next });
  }
}

/** Keys of a prompt in JSON lines, as data sets of calibrations name them. */
const TEXT_KEYS = ["text", "prompt"] as const;
const ID_KEYS = ["input_ids", "ids"] as const;

/** The prompt of a line of JSON; undefined for a line that is a text. */
function linePrompt(line: string): PromptOptions | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined; // a text, not JSON
  }
  if (typeof value === "string") return { prompt: value };
  if (Array.isArray(value)) return { ids: value };
  if (typeof value !== "object" || value === null) return undefined;
  const held = value as Readonly<Record<string, unknown>>;
  const [text, ids] = [TEXT_KEYS, ID_KEYS].map((keys) =>
    keys.map((key) => held[key]).find((one) => one !== undefined),
  );
  if (Array.isArray(ids)) return { ids };
  if (typeof text === "string") return { prompt: text };
  const message = `an object with the keys ${Object.keys(held).join(", ")}, expected ${[...TEXT_KEYS, ...ID_KEYS].join(", ")}`;
  throw new IsologitError("USAGE", message, {}, { next: "write the conversation of a chat as one `text`" });
}
