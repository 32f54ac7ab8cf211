/** The prompts of a calibration: those of a file, or a bundled one. */
import { readFile } from "node:fs/promises";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError, systemError, withLocation } from "../core/errors.ts";
import { bundledIds, type PromptOptions, promptOf, promptsDigest, promptsOf } from "../inference/prompts.ts";
import { CALIBRATION_FILE, type CalibrationRecord } from "../quantization/calibration.ts";

interface CalibrationPrompts {
  /** token ids of each */
  readonly prompts: readonly (readonly number[])[];
  readonly record: CalibrationRecord;
  readonly warnings: readonly string[];
}

/** Token ids as `--ids-file` reads them: separated by commas or white space, or as a JSON list. */
const IDS = /^\s*(\[\s*\d+(\s*,\s*\d+)*\s*\]|\d+((\s*,\s*|\s+)\d+)*)\s*$/;

/**
 * Reads the prompts of a calibration.
 *
 * @param calibrate path of a file with the token ids of one prompt, with a JSON list of such lists, with JSON lines (a text, a list of ids, or an object with
 *   `text`, `prompt`, `input_ids` or `ids`), or with a text for the checkpoint's tokenizer, a prompt on each line; true: the
 *   whole bundled text, or without a tokenizer the ids that a verification draws
 * @throws NOT_FOUND; USAGE, naming the line, for an id outside the vocabulary, an empty prompt, or a text without a tokenizer
 */
export async function calibrationPrompts(
  calibrate: true | string,
  model: Checkpoint,
  vocab: number,
): Promise<CalibrationPrompts> {
  if (calibrate !== true) return recorded(CALIBRATION_FILE, await promptsIn(calibrate, model, vocab), []);
  const text = await bundledIds(model, vocab, Number.POSITIVE_INFINITY);
  if (text.length > 0) return recorded("bundled", [text], []);
  const { ids } = await promptOf({}, model, vocab);
  const warning =
    "the checkpoint has no tokenizer: the scales of activations come from drawn token ids; give `calibrate` ids of a text";
  return recorded("bundled", [ids], [warning]);
}

async function promptsIn(
  file: string,
  model: Checkpoint,
  vocab: number,
): Promise<readonly (readonly number[])[]> {
  try {
    const text = await readFile(file, "utf8");
    if (IDS.test(text)) return [(await promptOf({ ids: text.match(/\d+/g)!.map(Number) }, model, vocab)).ids];
    const lines = text
      .split(/\r?\n/)
      .flatMap((line, i) => (line.trim() === "" ? [] : [{ line, number: i + 1 }]));
    const lists = promptLists(text);
    if (lists !== undefined) return await promptsOf({ prompts: lists }, model, vocab);
    if (lines.length < 2) return [(await promptOf(linePrompt(text) ?? { prompt: text }, model, vocab)).ids];
    const asJson = lines.map(({ line }) => linePrompt(line));
    const isJson = asJson.every((prompt) => prompt !== undefined);
    const prompts: (readonly number[])[] = [];
    for (const [i, { line, number }] of lines.entries())
      prompts.push(await idsOfLine(isJson ? asJson[i]! : { prompt: line }, number, model, vocab));
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

async function idsOfLine(
  prompt: PromptOptions,
  line: number,
  model: Checkpoint,
  vocab: number,
): Promise<readonly number[]> {
  try {
    return (await promptOf(prompt, model, vocab)).ids;
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

function recorded(
  prompt: CalibrationRecord["prompt"],
  prompts: readonly (readonly number[])[],
  warnings: readonly string[],
): CalibrationPrompts {
  const sha256 = promptsDigest(prompts);
  const tokens = prompts.reduce((sum, { length }) => sum + length, 0);
  const several = prompts.length > 1 ? { prompts: prompts.length } : {};
  return { prompts, record: { prompt, ...several, tokens, sha256 }, warnings };
}
