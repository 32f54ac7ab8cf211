/** The token ids of a calibration: those of a file, or bundled ones. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Checkpoint } from "../core/checkpoint.ts";
import { systemError, withLocation } from "../core/errors.ts";
import { bundledIds, promptOf } from "../inference/prompts.ts";
import { CALIBRATION_FILE, type CalibrationRecord } from "../quantization/calibration.ts";

interface CalibrationPrompt {
  readonly ids: readonly number[];
  readonly record: CalibrationRecord;
  readonly warnings: readonly string[];
}

/** Token ids as `--ids-file` reads them: separated by commas or white space, or as a JSON list. */
const IDS = /^\s*(\[\s*\d+(\s*,\s*\d+)*\s*\]|\d+((\s*,\s*|\s+)\d+)*)\s*$/;

/**
 * Reads the ids of a calibration.
 *
 * @param calibrate path of a file with token ids, or with a text for the checkpoint's tokenizer; true: the whole bundled
 *   text, or without a tokenizer the ids that a verification draws
 * @throws NOT_FOUND; USAGE for an id outside the vocabulary, an empty file, or a text without a tokenizer
 */
export async function calibrationPrompt(
  calibrate: true | string,
  model: Checkpoint,
  vocab: number,
): Promise<CalibrationPrompt> {
  if (calibrate !== true) return recorded(CALIBRATION_FILE, await idsIn(calibrate, model, vocab), []);
  const text = await bundledIds(model, vocab, Number.POSITIVE_INFINITY);
  if (text.length > 0) return recorded("bundled", text, []);
  const { ids } = await promptOf({}, model, vocab);
  const warning =
    "the checkpoint has no tokenizer: the scales of activations come from drawn token ids; give `calibrate` ids of a text";
  return recorded("bundled", ids, [warning]);
}

async function idsIn(file: string, model: Checkpoint, vocab: number): Promise<readonly number[]> {
  try {
    const text = await readFile(file, "utf8");
    const options = IDS.test(text) ? { ids: text.match(/\d+/g)!.map(Number) } : { prompt: text };
    return (await promptOf(options, model, vocab)).ids;
  } catch (error) {
    throw withLocation(systemError(error, { file }), { file });
  }
}

function recorded(
  prompt: CalibrationRecord["prompt"],
  ids: readonly number[],
  warnings: readonly string[],
): CalibrationPrompt {
  const bytes = new BigInt64Array(ids.map(BigInt));
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return { ids, record: { prompt, tokens: ids.length, sha256 }, warnings };
}
