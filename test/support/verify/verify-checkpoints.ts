import { loadModelWithScales } from "../../../src/checkpoint/load.ts";
import type { Checkpoint } from "../../../src/core/checkpoint.ts";
import type { VerifyReport } from "../../../src/verify/report.ts";
import { type VerifyModelsOptions, verifyModels } from "../../../src/verify/verify.ts";

/** `verifyModels` of two opened checkpoints. @param strictScales as where b was just converted from a */
export async function verifyCheckpoints(
  a: Checkpoint,
  b: Checkpoint,
  options: VerifyModelsOptions,
  strictScales = false,
): Promise<VerifyReport> {
  const models = [await loadModelWithScales(a, options), await loadModelWithScales(b, options)] as const;
  return (await verifyModels(...models, { ...options, strictScales })).report;
}
