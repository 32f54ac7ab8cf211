/** Findings about quantised weights: the declarations in config.json and hf_quant_config.json, dtypes and scales. */

import { declaredQuantizations, MODELOPT_CONFIG } from "../checkpoint/declared-quantization.ts";
import type { ScaleTable } from "../checkpoint/scales/pair.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import type { Finding } from "../core/finding.ts";
import { finding, findingOf } from "../core/finding.ts";
import { isJsonObject } from "../core/json.ts";
import type { Sources } from "../core/read.ts";
import { ENGINE_IDS, type EngineId } from "../quantization/engines/engine.ts";
import { dtypeFaults } from "../quantization/rules/dtype.ts";
import { generalFault, type QuantizationFault } from "../quantization/rules/fault.ts";
import { quantizationFaults } from "../quantization/rules/quantization.ts";
import { scaleFaults } from "../quantization/rules/scales.ts";
import type { CheckOptions } from "./options.ts";

/** @throws USAGE */
export function refuseUnknownEngines({ for: engines }: CheckOptions): void {
  const unknown = engines?.find((id) => !ENGINE_IDS.includes(id));
  if (unknown === undefined) return;
  const message = `\`for\` names ${JSON.stringify(unknown)}, expected some of ${ENGINE_IDS.join(", ")}`;
  throw new IsologitError("USAGE", message);
}

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

/** @param engines those that the user names; undefined: all */
export async function checkQuantization(
  checkpoint: Checkpoint,
  scales: ScaleTable,
  engines: readonly EngineId[] | undefined,
): Promise<readonly Finding[]> {
  const ofTypes = dtypeFaults(checkpoint).map((fault) => findingIn("config.json", fault));
  try {
    const declared = await declaredQuantizations(checkpoint);
    const faults = quantizationFaults(checkpoint, scales, declared, engines);
    const [first] = declared;
    const isUnlisted =
      first?.file === MODELOPT_CONFIG &&
      isJsonObject(first.value) &&
      !Object.keys(first.value).some((key) => LIST.test(key));
    return [
      ...ofTypes,
      ...(isUnlisted ? withoutList(faults) : faults).map((fault) =>
        findingIn(fault.file ?? "config.json", fault),
      ),
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
  const unlistedFault = generalFault("quantization-unlisted", "warning", message);
  return [
    ...faults.filter((fault) => !unlisted.includes(fault)),
    { ...unlistedFault, file: MODELOPT_CONFIG },
  ];
}

function findingIn(file: string, { rule, severity, tensor, message, engines }: QuantizationFault): Finding {
  const found = finding(rule, severity, { file, ...(tensor !== null && { tensor }) }, message);
  return engines.length === 0 ? found : { ...found, engines };
}
