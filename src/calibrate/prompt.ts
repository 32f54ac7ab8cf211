/** The prompts of a calibration: those of a file, or a bundled one. */
import type { Checkpoint } from "../core/checkpoint.ts";
import { promptsInFile } from "../inference/prompt-groups/prompt-file.ts";
import { bundledIds, promptOf, promptsDigest } from "../inference/prompts.ts";
import { CALIBRATION_FILE, type CalibrationRecord } from "../quantization/calibration.ts";

interface CalibrationPrompts {
  /** token ids of each */
  readonly prompts: readonly (readonly number[])[];
  readonly record: CalibrationRecord;
  readonly warnings: readonly string[];
}

/**
 * Reads the prompts of a calibration.
 *
 * @param calibrate path of a file of prompts, as `promptsInFile` reads it; true: the whole bundled text, or without a tokenizer the
 *   ids that a verification draws
 * @throws NOT_FOUND; USAGE, naming the line, for an id outside the vocabulary, an empty prompt, or a text without a tokenizer
 */
export async function calibrationPrompts(
  calibrate: true | string,
  model: Checkpoint,
  vocab: number,
): Promise<CalibrationPrompts> {
  if (calibrate !== true) {
    const prompts = await promptsInFile(calibrate, model, vocab);
    return recorded(
      CALIBRATION_FILE,
      prompts.map(({ ids }) => ids),
      [],
    );
  }
  const text = await bundledIds(model, vocab, Number.POSITIVE_INFINITY);
  if (text.length > 0) return recorded("bundled", [text], []);
  const { ids } = await promptOf({}, model, vocab);
  const warning =
    "the checkpoint has no tokenizer: the scales of activations come from drawn token ids; give `calibrate` ids of a text";
  return recorded("bundled", [ids], [warning]);
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
