/** What config.json says of FP8 weights and of types, and the scales themselves, as findings of `check`. */
import type { Finding } from "../api/reports.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import type { Sources } from "../core/read.ts";
import { dtypeFaults, type Fault, quantizationFaults, scaleFaults } from "../recast/quantization-rules.ts";
import type { Scales } from "../recast/spelling.ts";
import { finding } from "./findings.ts";

/** Reads the scales themselves: a few bytes a tensor. */
export async function checkScales(
  checkpoint: Checkpoint,
  scales: Scales,
  files: Sources,
): Promise<readonly Finding[]> {
  const pieces = new Map(checkpoint.tensors.map(({ name, pieces }) => [name, pieces]));
  return (await scaleFaults(checkpoint, scales, files)).map((fault) =>
    findingIn(pieces.get(fault.tensor ?? "")?.[0]?.file ?? "", fault),
  );
}

export function checkQuantization(checkpoint: Checkpoint, scales: Scales): readonly Finding[] {
  const faults = [...quantizationFaults(checkpoint, scales), ...dtypeFaults(checkpoint)];
  return faults.map((fault) => findingIn("config.json", fault));
}

function findingIn(file: string, { rule, severity, tensor, message }: Fault): Finding {
  return finding(rule, severity, { file, ...(tensor !== null && { tensor }) }, message);
}
