/** Findings about FP8 weights: the declarations in config.json, dtypes and scales. */

import { declaredQuantization, MODELOPT_CONFIG } from "../checkpoint/declared-quantization.ts";
import type { ScaleTable } from "../checkpoint/scales/pair.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import type { Finding } from "../core/finding.ts";
import { finding, findingOf } from "../core/finding.ts";
import type { Sources } from "../core/read.ts";
import {
  dtypeFaults,
  type QuantizationFault,
  quantizationFaults,
  scaleFaults,
} from "../quantization/rules.ts";

/** Reads the values of the scales: a few bytes for each tensor. */
export async function checkScales(
  checkpoint: Checkpoint,
  scales: ScaleTable,
  files: Sources,
): Promise<readonly Finding[]> {
  const pieces = new Map(checkpoint.tensors.map(({ name, pieces }) => [name, pieces]));
  return (await scaleFaults(checkpoint, scales, files)).map((fault) =>
    findingIn(pieces.get(fault.tensor ?? "")?.[0]?.file ?? "", fault),
  );
}

export async function checkQuantization(
  checkpoint: Checkpoint,
  scales: ScaleTable,
): Promise<readonly Finding[]> {
  const ofTypes = dtypeFaults(checkpoint).map((fault) => findingIn("config.json", fault));
  try {
    const declared = await declaredQuantization(checkpoint);
    const { file = "config.json", value: said } = declared ?? {};
    const config = { ...checkpoint.config, ...(declared !== null && { quantization_config: said }) };
    const faults = quantizationFaults({ config, tensors: checkpoint.tensors }, scales);
    const isUnlisted = file === MODELOPT_CONFIG && !Object.keys(said as object).some((key) => LIST.test(key));
    return [
      ...ofTypes,
      ...(isUnlisted ? withoutList(faults) : faults).map((fault) => findingIn(file, fault)),
    ];
  } catch (error) {
    return [...ofTypes, findingOf(error, "config.json")];
  }
}

/** Key of ModelOpt's list of modules that are not quantized. */
const LIST = /^(exclude_modules|ignore)$/;

/** One finding for a checkpoint whose file lists no module although some weights are not FP8. */
function withoutList(faults: readonly QuantizationFault[]): readonly QuantizationFault[] {
  const unlisted = faults.filter(({ rule }) => rule === "quantization-contradiction");
  if (unlisted.length === 0) return faults;
  const message = `the file lists no module as not quantized, but ${unlisted.length} projections are not FP8: an engine that reads only this file expects scales for them`;
  const unlistedFault = {
    rule: "quantization-unlisted",
    severity: "warning",
    message,
    tensor: null,
  } as const;
  return [...faults.filter((fault) => !unlisted.includes(fault)), unlistedFault];
}

function findingIn(file: string, { rule, severity, tensor, message }: QuantizationFault): Finding {
  return finding(rule, severity, { file, ...(tensor !== null && { tensor }) }, message);
}
